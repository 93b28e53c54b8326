//! The operating system: system calls that Rust's library lacks, child processes, this process's privileges and resources, the log.

pub(crate) mod child;
pub(crate) mod logging;
pub mod privileges;
pub(crate) mod process;
pub(crate) mod sys;

/// Returns an error's text without the number that Rust adds.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        plain += before;
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        match after[end..].strip_prefix(')') {
            Some(behind) if end > 0 => rest = behind,
            _ => {
                plain += " (os error ";
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn errors_are_said_without_numbers() {
        for (text, expected) in [
            ("a: No such file or directory (os error 2): b", "a: No such file or directory: b"),
            ("x (os error 13) (os error 2)", "x"),
            ("no error", "no error"),
            ("odd (os error ) (os error 2", "odd (os error ) (os error 2"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
