//! The terminal: names made harmless, lines that fit, a screen of its own for as long as something lives on it.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Longest name that is shown outside of a terminal.
pub const LONGEST: usize = 100;

/// A name from outside, cut to a width. What is not plain ASCII is escaped: it could move the cursor, or look like something else.
pub fn safe(name: &str, width: usize) -> String {
    let mut text = String::new();
    for c in name.chars().take(width + 1) {
        match c {
            ' '..='~' => text.push(c),
            c => text.extend(c.escape_unicode()),
        }
    }
    cut(text, width)
}

fn cut(mut text: String, width: usize) -> String {
    if text.chars().count() > width {
        let end = text.char_indices().nth(width.saturating_sub(1)).map_or(0, |(at, _)| at);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A number of packets; not exact: there may have been more.
pub fn at_least(packets: u64, is_exact: bool) -> String {
    if is_exact { packets.to_string() } else { format!(">={packets}") }
}

pub fn time(seconds: u64) -> String {
    match seconds {
        1 => "1 second".to_owned(),
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Rows in columns, two blanks apart; no line ends in blanks. `numbers`: the columns that end, instead of begin, below each other.
pub fn columns(rows: &[Vec<String>], numbers: Range<usize>) -> Vec<String> {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match numbers.contains(&column) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

pub fn is_live() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// A screen of its own; the old one comes back when it is dropped.
pub struct Screen {
    before: Option<Termios>,
    ended: Arc<AtomicBool>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut termios) = before.clone() {
            termios.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(io::stdin(), OptionalActions::Now, &termios)?;
        }
        let screen = Screen { before, ended };
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = self.size();
        let mut text = String::from("\x1b[H");
        for (row, line) in lines.iter().take(rows).enumerate() {
            text += if row == 0 { "" } else { "\r\n" };
            text += &cut(line.clone(), columns);
            text += "\x1b[K";
        }
        write(&(text + "\x1b[J"))
    }

    /// Waits; whether to go on then: not after `q` or a signal.
    pub fn wait(&self, time: Duration) -> bool {
        let stdin = io::stdin();
        let ready = Timespec::try_from(time).map(|time| poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&time)));
        if matches!(ready, Ok(Ok(1))) {
            let mut keys = [0; 16];
            let count = rustix::io::read(&stdin, &mut keys).unwrap_or(0);
            // The end of the input is the end of the terminal.
            if count == 0 || keys[..count].iter().any(|key| b"qQ".contains(key)) {
                return false;
            }
        }
        !self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

pub fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_and_fit() {
        for (name, shown) in [
            ("shop/web-1", "shop/web-1"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\n\tb\u{9b}", "a\\u{d}\\u{a}\\u{9}b\\u{9b}"),
            ("\u{202e}gnp", "\\u{202e}gnp"),
            ("漢字", "\\u{6f22}\\u{5b57}"),
            ("<img onerror=\"x\">", "<img onerror=\"x\">"),
            ("x123456789012345678901234", "x123456789012345678…"),
        ] {
            assert!(safe(name, 20).len() <= 22, "{name}");
            assert_eq!(safe(name, 20), cut(shown.to_owned(), 20), "{name:?}");
        }
        assert_eq!(safe(&"x".repeat(10_000), 100).chars().count(), 100);
    }

    #[test]
    fn columns_stand_straight() {
        let rows = [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()], vec!["bcd".to_owned(), "22".to_owned(), String::new()]];
        assert_eq!(columns(&rows, 1..2), ["a     1  x", "bcd  22"]);
    }
}
