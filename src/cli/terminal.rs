//! Terminal output: escapes names, fits lines to the width, and manages a separate screen for live output.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The longest name that is shown outside of a terminal.
pub const LONGEST: usize = 100;

/// Cuts a foreign name to a width, and escapes everything but plain ASCII, which could move the cursor or look like something else.
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

/// Formats a number of packets. If it is not exact, there may have been more.
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

/// Formats rows in columns, two blanks apart, without blanks at the end. The columns in `numbers` are right-aligned.
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

/// Shortens texts, the longest first, until rows fit into `width` columns. Numbers are not cut.
pub fn fit(rows: &mut [Vec<String>], numbers: Range<usize>, width: usize) {
    const SHORTEST: usize = 8;
    let length = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> =
        (0..rows.first().map_or(0, Vec::len)).map(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0)).collect();
    while widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1) > width {
        let texts = widths.iter_mut().enumerate().filter(|(column, width)| !numbers.contains(column) && **width > SHORTEST);
        let Some((_, widest)) = texts.max_by_key(|(_, width)| **width) else { break };
        *widest -= 1;
    }
    for row in rows {
        row.iter_mut()
            .zip(&widths)
            .filter(|(cell, width)| length(cell) > **width)
            .for_each(|(cell, width)| *cell = middle_cut(cell, *width));
    }
}

/// Cuts the middle, because names often differ at their ends.
fn middle_cut(text: &str, width: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    let end = width.saturating_sub(1) / 2;
    let start = width.saturating_sub(1 + end);
    letters[..start].iter().chain(&['…']).chain(&letters[letters.len() - end..]).collect()
}

/// Wraps the texts of rows of a text and numbers, so that they fit into `width` columns.
pub fn wrapped(rows: Vec<Vec<String>>, width: usize) -> Vec<Vec<String>> {
    const SHORTEST: usize = 16;
    let numbers = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count() + 2)).max().unwrap_or(0);
    let columns = rows.first().map_or(0, Vec::len);
    let room = width.saturating_sub((1..columns).map(numbers).sum()).max(SHORTEST);
    let mut all = Vec::new();
    for mut row in rows {
        let indent = row[0].chars().take_while(|c| *c == ' ').count() + 2;
        while row[0].chars().count() > room {
            // At a blank, if there is one after the indentation.
            let letters: Vec<char> = row[0].chars().collect();
            let blank = letters[..=room].iter().rposition(|c| *c == ' ').filter(|blank| *blank > indent);
            let end = blank.unwrap_or(room);
            let rest: String = letters[end..].iter().collect();
            let first: String = letters[..end].iter().collect();
            let mut cells = row.clone();
            cells[0] = first;
            all.push(cells);
            row = vec![String::new(); columns];
            row[0] = format!("{:indent$}{}", "", rest.trim_start());
        }
        all.push(row);
    }
    all
}

/// Describes the number of rules that were not understood.
pub fn not_understood(rules: u64) -> String {
    match rules {
        1 => "1 rule is not understood: what depends on it is left out.".to_owned(),
        _ => format!("{rules} rules are not understood: what depends on them is left out."),
    }
}

/// Returns the width of the terminal at standard output.
pub fn width() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0);
    size.map(|size| size.ws_col.into())
}

pub fn is_live() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// A separate screen. Dropping it restores the old one.
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

    /// Waits for at most `time`. Returns the pressed keys, or `None` after a signal, or if the terminal is closed.
    pub fn wait(&self, time: Duration) -> Option<Vec<Key>> {
        let stdin = io::stdin();
        let ready = Timespec::try_from(time).map(|time| poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&time)));
        let mut keys = Vec::new();
        if matches!(ready, Ok(Ok(1))) {
            let mut bytes = [0; 64];
            let count = rustix::io::read(&stdin, &mut bytes).unwrap_or(0);
            // The end of the input means that the terminal is closed.
            if count == 0 {
                return None;
            }
            keys = Key::all(&bytes[..count]);
        }
        (!self.ended.load(Ordering::Relaxed)).then_some(keys)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

impl Key {
    /// Parses what terminals send: a sequence for each key that is not a letter.
    fn all(mut bytes: &[u8]) -> Vec<Key> {
        const SEQUENCES: [(&[u8], Key); 14] = [
            (b"\x1b[A", Key::Up),
            (b"\x1bOA", Key::Up),
            (b"\x1b[B", Key::Down),
            (b"\x1bOB", Key::Down),
            (b"\x1b[5~", Key::PageUp),
            (b"\x1b[6~", Key::PageDown),
            (b"\x1b[H", Key::Home),
            (b"\x1b[1~", Key::Home),
            (b"\x1b[F", Key::End),
            (b"\x1b[4~", Key::End),
            (b"\r", Key::Enter),
            (b"\n", Key::Enter),
            (b"\x7f", Key::Backspace),
            (b"\x08", Key::Backspace),
        ];
        let mut keys = Vec::new();
        while let [first, rest @ ..] = bytes {
            let known = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence));
            bytes = known.map_or(rest, |(sequence, _)| &bytes[sequence.len()..]);
            match (known, first, rest) {
                (Some((_, key)), ..) => keys.push(*key),
                // An unknown key.
                (None, 0x1b, [b'[' | b'O', more @ ..]) => {
                    let end = more.iter().position(|byte| (0x40..0x7f).contains(byte)).map_or(more.len(), |end| end + 1);
                    bytes = &more[end..];
                }
                (None, 0x1b, _) => keys.push(Key::Escape),
                (None, b' '..=b'~', _) => keys.push(Key::Letter(char::from(*first))),
                _ => {}
            }
        }
        keys
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
    fn keys_are_told_apart() {
        let keys = Key::all(b"q\x1b[A\x1b[6~\x1b[1;5C\x1bOPx\x7f\r\xc3\xa4\x1b");
        assert_eq!(keys, [Key::Letter('q'), Key::Up, Key::PageDown, Key::Letter('x'), Key::Backspace, Key::Enter, Key::Escape]);
    }

    #[test]
    fn long_names_make_room_for_numbers() {
        let mut rows = vec![vec!["shop/web-7d4b9c5f6-x2k4j".to_owned(), "1234567890".to_owned(), "default.allow-web".to_owned()]];
        fit(&mut rows, 1..2, 42);
        assert_eq!(rows[0], ["shop/we…-x2k4j", "1234567890", "default…ow-web"].map(str::to_owned));
        fit(&mut rows, 1..2, 10);
        assert_eq!(rows[0], ["shop…k4j", "1234567890", "defa…web"].map(str::to_owned));
    }

    #[test]
    fn texts_go_on_below_where_it_is_narrow() {
        let row = |text: &str, number: &str| vec![text.to_owned(), number.to_owned()];
        let rows = vec![row("  1. NetworkPolicy shop/web-allow-from-everywhere", "12345"), row("short", "1")];
        let found = wrapped(rows.clone(), 30);
        let expected =
            [row("  1. NetworkPolicy", "12345"), row("    shop/web-allow-from", ""), row("    -everywhere", ""), row("short", "1")];
        assert_eq!(found, expected);
        assert_eq!(wrapped(rows.clone(), 80), rows);
        assert!(columns(&found, 1..2).iter().all(|line| line.chars().count() <= 30));
        // It ends for any width.
        assert!(wrapped(rows, 0).len() > 3);
    }

    #[test]
    fn columns_stand_straight() {
        let rows = [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()], vec!["bcd".to_owned(), "22".to_owned(), String::new()]];
        assert_eq!(columns(&rows, 1..2), ["a     1  x", "bcd  22"]);
    }
}
