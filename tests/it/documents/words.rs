//! Plain English: words that we do not use, and what we say instead; and a limit for sentences. In documents, in what `--help` and man
//! pages say, and in messages. The words also in comments, and in what dashboards and alerts say. Pure.

use std::fs;
use std::path::{Path, PathBuf};

use calico_accountant::config::commands::{OPTIONS, SUBCOMMANDS};
use calico_accountant::config::settings::SETTINGS;

use super::{Page, ROOT, pages};

/// A sentence may have so many words.
const LONGEST: usize = 32;

/// In lower case. A blank at an end is the end of a word.
const AVOIDED: &[(&str, &str)] = &[
    ("but for ", "except"),
    ("at once", "immediately; together"),
    ("anew", "again"),
    ("goes over", "overrides"),
    (" go on ", "continue"),
    ("goes on", "continues"),
    (", for it ", "because"),
    (", for they ", "because"),
    (", for what ", "because"),
    (", for its ", "because"),
    ("mean it ill", "malicious"),
    ("withstands", "tolerates, survives"),
    ("whoever", "a client that; anyone who"),
    ("nobody knows", "cannot be known"),
    ("is away", "is unavailable"),
    ("that is no ", "that is not a"),
    ("what is no ", "what is not a"),
    ("that are no ", "that are not"),
    ("at times", "sometimes"),
    ("for moments", "briefly"),
    (" taken apart", "parsed, decoded"),
    ("passed over", "skipped"),
    ("pass over", "skip"),
    ("gives way", "is closed"),
    ("give way", "are closed"),
    (" heed", "check"),
    ("beside ", "next to, during"),
    ("some 1", "about"),
    ("some 8", "about"),
    (" as a rule", "usually"),
    ("matter of course", "normal"),
    ("not there", "missing"),
    ("in mid-", "during"),
    ("thereof", "of it"),
    ("so many", "this many"),
    ("so long", "this long"),
    ("be had", "be taken"),
    ("look around", "search"),
    ("look again", "reconsider"),
    ("told apart", "distinguished"),
    ("on their way", "in flight"),
    ("on its way", "in flight"),
    ("broken off", "closed"),
];

/// What is avoided in a text, in lower case and on one line.
fn avoided(text: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let text = format!(" {} ", text.to_lowercase());
    AVOIDED.iter().filter(move |(word, _)| text.contains(word))
}

/// A page's sentences, each with the line that its paragraph begins in. Code counts as one word; it is not looked into.
fn sentences(page: &Page) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (number, line) in page.prose() {
        let text = line.trim();
        let is_row = text.starts_with('|');
        let begins = text.starts_with(['#', '*', '-', '|', '<']) || text.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        if text.is_empty() || begins || !is_open {
            is_open = !text.is_empty() && !is_row && !text.starts_with('#');
            match is_row {
                true => paragraphs.extend(text.split('|').map(|cell| (number, cell.trim().to_owned()))),
                false => paragraphs.push((number, text.trim_start_matches(['*', '-', '#', ' ']).to_owned())),
            }
        } else {
            paragraphs.last_mut().unwrap().1 += &format!(" {text}");
        }
    }
    let without_code = |text: &str| text.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "CODE" }).collect::<String>();
    let split = |(number, text): (usize, String)| {
        let text = without_code(&text);
        text.split_inclusive(['.', ':', ';', '?', '!'])
            .fold(vec![String::new()], |mut all, part| {
                // A point within a word, as of a version, ends no sentence.
                let ends = all.last().unwrap().ends_with(['.', ':', ';', '?', '!']) && part.starts_with([' ', '*', ')']);
                match ends {
                    true => all.push(part.trim().to_owned()),
                    false => *all.last_mut().unwrap() += part,
                }
                all
            })
            .into_iter()
            .map(move |sentence| (number, sentence))
            .collect::<Vec<_>>()
    };
    paragraphs.into_iter().flat_map(split).collect()
}

fn faults(page: &Page) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, sentence) in sentences(page) {
        let words = sentence.split_whitespace().count();
        if words > LONGEST {
            faults.push(format!("{}:{number}: {words} words: {sentence}", page.path));
        }
        faults.extend(avoided(&sentence).map(|(word, plain)| format!("{}:{number}: {word:?} ({plain}): {sentence}", page.path)));
    }
    faults
}

#[test]
fn documents_are_plain() {
    let faults: Vec<String> = pages().iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn help_is_plain() {
    let mut texts: Vec<&str> = SETTINGS.iter().flat_map(|setting| [setting.help, setting.default.unwrap_or_default()]).collect();
    texts.extend(SUBCOMMANDS.iter().flat_map(|command| [command.about, command.more]));
    texts.extend(OPTIONS.iter().map(|option| option.help));
    let found = faults(&Page { path: "--help".into(), text: texts.join("\n\n") });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The texts in quotation marks, of four words and more: messages. Lines of comments are left out, and what tests say.
fn messages(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let quoted = lines
        .join("\n")
        .replace("\\\"", "'")
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|text| text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>();
    quoted.into_iter().filter(|text| text.split(' ').count() >= 4).collect()
}

#[test]
fn messages_are_plain() {
    let (mut count, mut found) = (0, Vec::new());
    for file in sources(&Path::new(ROOT).join("src")) {
        if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("tests.rs") {
            continue;
        }
        for message in messages(&fs::read_to_string(&file).unwrap()) {
            count += 1;
            found.extend(avoided(&message).map(|(word, plain)| format!("{}: {word:?} ({plain}): {message}", file.display())));
        }
    }
    assert!(count > 300, "{count}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The comments of a source, each block of lines as one text.
fn comments(source: &str) -> Vec<String> {
    let mut comments = vec![String::new()];
    for line in source.lines().map(str::trim_start) {
        match ["//", "#", "/*", "* "].iter().find_map(|mark| line.strip_prefix(mark)) {
            Some(text) => *comments.last_mut().unwrap() += &format!("{} ", text.trim_start_matches(['/', '!', '*', ' '])),
            None => comments.push(String::new()),
        }
    }
    comments.retain(|comment| !comment.is_empty());
    comments
}

#[test]
fn comments_are_plain() {
    let (mut count, mut found) = (0, Vec::new());
    for file in ["src", "tests/it", "benches", "scripts", "deploy"].iter().flat_map(|folder| sources(&Path::new(ROOT).join(folder))) {
        if file.ends_with("words.rs") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let texts = match file.extension().and_then(|extension| extension.to_str()) {
            // What people read in Grafana.
            Some("json") => text.lines().filter(|line| line.contains("\"description\"")).map(str::to_owned).collect(),
            Some("yaml") => {
                [comments(&text), text.lines().filter(|line| line.contains("description: ")).map(str::to_owned).collect()].concat()
            }
            Some("md" | "svg") => continue,
            _ => comments(&text),
        };
        count += texts.len();
        let faults = |text: String| avoided(&text).map(|(word, plain)| format!("{word:?} ({plain}): {text}")).collect::<Vec<_>>();
        found.extend(texts.into_iter().flat_map(faults).map(|fault| format!("{}: {fault}", file.display())));
    }
    assert!(count > 3000, "{count}");
    assert!(found.is_empty(), "{} faults\n{}", found.len(), found.join("\n"));
}

#[test]
fn faults_are_found() {
    let found = |text: &str| faults(&Page { path: "x.md".into(), text: text.into() }).len();
    let long = vec!["word"; LONGEST].join(" ");
    for (text, expected) in [
        (format!("{long}.\n{long}."), 0),
        (format!("{long}\nand more."), 1),
        (format!("* {long}\n* {long}"), 0),
        (format!("| {long} | {long} |"), 0),
        (format!("| {long} more |"), 1),
        (format!("{long} `and in code`"), 1),
        ("Whoever\nasks at\nonce, `whoever`.".into(), 2),
        ("```\nwhoever\n```".into(), 0),
    ] {
        assert_eq!(found(&text), expected, "{text}");
    }
    assert_eq!(messages("let a = \"one \\\n   two 'three' four\"; // \"x\"\n/// \"a b c d\"\n"), ["one two 'three' four"]);
    assert_eq!(comments("/// One\n/// two.\ncode\n    // Three.\n# Four."), ["One two. ", "Three. Four. "]);
}
