//! The view of the tables, and the keys that change it. Pure.

use crate::cli::terminal::Key;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Rate,
    Total,
    Workload,
    Reason,
}

impl Sort {
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Total => "total",
            Sort::Workload => "workload",
            Sort::Reason => "reason",
        }
    }

    fn next(self) -> Self {
        match self {
            Sort::Rate => Sort::Total,
            Sort::Total => Sort::Workload,
            Sort::Workload => Sort::Reason,
            Sort::Reason => Sort::Rate,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    pub sort: Sort,
    /// Only rows that contain this text are shown, ignoring case.
    pub filter: String,
    /// Whether keys are letters of the filter.
    pub is_typing: bool,
    pub is_help: bool,
    /// The number of rows above the first one shown.
    pub offset: usize,
}

pub const HELP: [&str; 9] = [
    "s            sort drops by rate, total, workload or reason",
    "/            show only rows with a text: type it, Enter keeps it, Esc drops it",
    "Down, j      a row down",
    "Up, k        a row up",
    "PgDn, blank  a page down",
    "PgUp, b      a page up",
    "Home, End    the first and the last row",
    "?            this help; any key leaves it",
    "q, Ctrl-C    end",
];

impl View {
    /// Handles a key. `page` is the number of rows on a page. Returns whether to continue.
    pub fn press(&mut self, key: Key, page: usize) -> bool {
        match key {
            Key::Escape if !self.is_help => (self.is_typing, self.filter, self.offset) = (false, String::new(), 0),
            Key::Enter if self.is_typing => self.is_typing = false,
            Key::Backspace if self.is_typing => _ = self.filter.pop(),
            Key::Letter(letter) if self.is_typing => {
                self.filter.push(letter);
                self.offset = 0;
            }
            Key::Letter('q' | 'Q') => return false,
            _ if self.is_help => self.is_help = false,
            Key::Letter('?' | 'h') => self.is_help = true,
            Key::Letter('/') => self.is_typing = true,
            Key::Letter('s') => self.sort = self.sort.next(),
            Key::Down | Key::Letter('j') => self.offset += 1,
            Key::Up | Key::Letter('k') => self.offset = self.offset.saturating_sub(1),
            Key::PageDown | Key::Letter(' ') => self.offset += page,
            Key::PageUp | Key::Letter('b') => self.offset = self.offset.saturating_sub(page),
            Key::Home => self.offset = 0,
            // An offset that is too large is reduced when it is drawn.
            Key::End => self.offset = usize::MAX / 2,
            _ => {}
        }
        true
    }

    pub fn shows(&self, row: &[String]) -> bool {
        self.filter.is_empty() || row.join(" ").to_lowercase().contains(&self.filter.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_what_is_shown() {
        let mut view = View::default();
        let mut press = |keys: &str| {
            let went_on = keys.chars().all(|key| view.press(if key == '\n' { Key::Enter } else { Key::Letter(key) }, 10));
            (went_on, view.clone())
        };
        assert_eq!(press("sjj ").1, View { sort: Sort::Total, offset: 12, ..View::default() });
        // In a filter, letters are letters.
        assert_eq!(press("/qs\n"), (true, View { sort: Sort::Total, filter: "qs".into(), ..View::default() }));
        assert!(press("?").1.is_help && !press("x").1.is_help && !press("q").0);
        assert!(view.press(Key::Escape, 10) && view.filter.is_empty());
        assert!(view.press(Key::End, 10) && view.offset > 1 << 30);
        for key in [Key::Home, Key::Up] {
            assert!(view.press(key, 10) && view.offset == 0);
        }
    }

    #[test]
    fn a_filter_is_looked_for_in_the_whole_row() {
        let view = View { filter: "Web in".into(), ..View::default() };
        assert!(view.shows(&["7".into(), "shop/web".into(), "in".into()]) && !view.shows(&["7".into(), "shop/web".into(), "out".into()]));
    }
}
