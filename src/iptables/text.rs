//! Parses the text of `iptables-save -c` and `ip6tables-save -c` → [`Snapshot`]. Pure: gets bytes in pieces of any size. A line that cannot
//! be parsed is counted, never fatal.

use std::borrow::Cow;
use std::fmt;

use crate::felix::names::CHAIN_PREFIX;
use crate::kernel::add_comment;
use crate::ruleset::{Backend, Builder, ChainId, Count, CtState, Family, MarkMatch, RuleParts, Snapshot, Verdict};

/// The longest line that is parsed, in bytes. Felix's longest rules are shorter than 2 kB.
const LONGEST_LINE: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextError {
    /// The table has no `COMMIT`: the writer died or its output was truncated.
    CutOff(&'static str),
    /// There is text, but no table in it.
    NoTable,
    /// iptables-nft printed this line instead of a table, because a newer release wrote rules that it cannot show.
    Incompatible(String),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::CutOff(table) => write!(f, "the output ends within table {table}, before its COMMIT"),
            TextError::NoTable => f.write_str("its output is not that of iptables-save: it contains no table"),
            TextError::Incompatible(line) => {
                write!(
                    f,
                    "it says \"{line}\": rules in that table are not iptables': another program wrote some by nft, or a newer \
                     iptables wrote \
                 Calico's. SOURCE=kernel reads them, and nft -j list ruleset saves them"
                )
            }
        }
    }
}

impl std::error::Error for TextError {}

#[derive(Debug)]
pub struct Parser {
    builder: Builder,
    table: &'static str,
    section: Section,
    /// An incomplete line.
    partial: Vec<u8>,
    /// Whether the rest of an overlong line is being skipped.
    skipping: bool,
    incompatible: Option<String>,
    /// The first line that could not be parsed, for the log.
    first_unreadable: Option<String>,
    /// Reused between lines.
    parts: RuleParts,
    /// The chain of the previous line. Rules are listed chain by chain.
    current: Option<ChainId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Before the wanted table and outside any other.
    Before,
    Wanted,
    /// In another table, or after the wanted one's `COMMIT`.
    Other,
}

impl Parser {
    pub fn new(family: Family, backend: Backend, table: &'static str) -> Self {
        Parser {
            builder: Builder::new(family, backend, table),
            table,
            section: Section::Before,
            partial: Vec::new(),
            skipping: false,
            incompatible: None,
            first_unreadable: None,
            parts: RuleParts::default(),
            current: None,
        }
    }

    pub fn push(&mut self, mut text: &[u8]) {
        while let Some(end) = text.iter().position(|&b| b == b'\n') {
            let (line, rest) = (&text[..end], &text[end + 1..]);
            if self.partial.is_empty() && line.len() <= LONGEST_LINE {
                self.line(line);
            } else {
                self.keep_partial(line);
                self.end_partial();
            }
            text = rest;
        }
        self.keep_partial(text);
    }

    fn keep_partial(&mut self, piece: &[u8]) {
        let kept = piece.len().min(LONGEST_LINE - self.partial.len());
        self.partial.extend_from_slice(&piece[..kept]);
        self.skipping |= kept < piece.len();
    }

    fn end_partial(&mut self) {
        let line = std::mem::take(&mut self.partial);
        match std::mem::take(&mut self.skipping) {
            true => self.unreadable(&line),
            false => self.line(&line),
        }
        self.partial = line;
        self.partial.clear();
    }

    /// Returns the table. It is empty if the text has no such table.
    pub fn finish(mut self) -> Result<Snapshot, TextError> {
        if !self.partial.is_empty() || self.skipping {
            self.end_partial();
        }
        if let Some(line) = self.incompatible {
            return Err(TextError::Incompatible(line));
        }
        match self.section {
            Section::Wanted => Err(TextError::CutOff(self.table)),
            Section::Before if self.first_unreadable.is_some() => Err(TextError::NoTable),
            _ => Ok(self.builder.finish()),
        }
    }

    pub fn first_unreadable(&self) -> Option<&str> {
        self.first_unreadable.as_deref()
    }

    pub fn rule_count(&self) -> usize {
        self.builder.rule_count()
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), self.section) {
            (None, _) => {}
            (Some(b'#'), _) => self.remark(line),
            (Some(b'*'), _) if is_name(&line[1..]) => {
                self.section = if &line[1..] == self.table.as_bytes() { Section::Wanted } else { Section::Other };
            }
            (_, Section::Wanted) => self.table_line(line),
            // Another table's line is ignored, but garbage before any table is reported.
            (_, Section::Before) => self.unreadable(line),
            (_, Section::Other) => {}
        }
    }

    /// `# Table `filter' is incompatible, use 'nft' tool.`
    fn remark(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if text.contains("is incompatible, use 'nft' tool") && text.contains(self.table) {
            self.incompatible = Some(text.trim_start_matches(['#', ' ']).to_owned());
        }
    }

    fn table_line(&mut self, line: &[u8]) {
        match line.first() {
            Some(b':') => self.declare_chain(line),
            Some(b'[' | b'-') => {
                if self.rule(line).is_none() {
                    self.unreadable(line);
                }
            }
            _ if line == b"COMMIT" => self.section = Section::Other,
            _ => self.unreadable(line),
        }
    }

    fn unreadable(&mut self, line: &[u8]) {
        self.builder.unreadable();
        self.note_unreadable(line);
    }

    fn note_unreadable(&mut self, line: &[u8]) {
        if self.first_unreadable.is_none() {
            let start = &line[..line.len().min(200)];
            self.first_unreadable = Some(String::from_utf8_lossy(start).into_owned());
        }
    }

    /// `:cali-tw-cali1234 - [0:0]`
    fn declare_chain(&mut self, line: &[u8]) {
        let name = line[1..].split(|&b| b == b' ').next().unwrap_or_default();
        if name.starts_with(CHAIN_PREFIX.as_bytes()) {
            match std::str::from_utf8(name) {
                Ok(name) => _ = self.builder.chain(name),
                Err(_) => self.unreadable(line),
            }
        }
    }

    /// `[packets:bytes] -A chain matches… -j target…`. Returns `None` if not even its chain can be read.
    fn rule(&mut self, line: &[u8]) -> Option<()> {
        let (count, rest) = counters(line)?;
        let mut words = Words(rest);
        if words.next()?? != &b"-A"[..] {
            return None;
        }
        let chain = words.next()??;
        if !chain.starts_with(CHAIN_PREFIX.as_bytes()) {
            return Some(());
        }
        let chain = self.chain(&chain)?;
        let mut parts = std::mem::take(&mut self.parts);
        parts.comments.clear();
        parts = RuleParts { count: count.unwrap_or_default(), comments: parts.comments, ..RuleParts::default() };
        match count.and(self.matches_and_target(&mut words, &mut parts)) {
            Some(verdict) => self.builder.push(chain, &parts, verdict),
            None => {
                self.note_unreadable(line);
                self.builder.push_unreadable(chain, count);
            }
        }
        self.parts = parts;
        Some(())
    }

    fn chain(&mut self, name: &[u8]) -> Option<ChainId> {
        if let Some(current) = self.current.filter(|&id| self.builder.chain_name(id).as_bytes() == name) {
            return Some(current);
        }
        let chain = self.builder.chain(std::str::from_utf8(name).ok()?);
        self.current = Some(chain);
        Some(chain)
    }

    fn matches_and_target(&mut self, words: &mut Words, parts: &mut RuleParts) -> Option<Verdict> {
        let mut negated = false;
        while let Some(word) = words.next() {
            let word = word?;
            match word.as_ref() {
                b"!" => {
                    negated = true;
                    continue;
                }
                b"--comment" => add_comment(&words.next()??, parts, &mut self.builder),
                b"--mark" => {
                    let (value, mask) = value_and_mask(&words.next()??)?;
                    parts.mark = Some(MarkMatch { value, mask, negated });
                }
                b"--ctstate" => parts.ctstate = ctstate(&words.next()??, negated),
                b"-j" => return self.target(words, Verdict::Jump),
                b"-g" => return self.target(words, Verdict::Goto),
                // The name of a match says nothing that its options don't.
                b"-m" => match words.next()??.as_ref() {
                    b"comment" | b"mark" | b"conntrack" => {}
                    _ => parts.other_matches = true,
                },
                _ => parts.other_matches = true,
            }
            negated = false;
        }
        Some(Verdict::None)
    }

    fn nflog(&mut self, words: &mut Words) -> Option<Verdict> {
        while let Some(word) = words.next() {
            if word?.as_ref() == b"--nflog-prefix" {
                let prefix = words.next()??;
                return Some(Verdict::Nflog(Some(self.builder.comment(&String::from_utf8_lossy(&prefix)))));
            }
        }
        Some(Verdict::Nflog(None))
    }

    fn target(&mut self, words: &mut Words, call: fn(ChainId) -> Verdict) -> Option<Verdict> {
        let name = words.next()??;
        Some(match name.as_ref() {
            b"MARK" => return set_mark(words),
            b"RETURN" => Verdict::Return,
            b"ACCEPT" => Verdict::Accept,
            b"DROP" => Verdict::Drop,
            b"REJECT" => Verdict::Reject,
            b"LOG" => Verdict::Log,
            b"NFLOG" => return self.nflog(words),
            name if name.starts_with(CHAIN_PREFIX.as_bytes()) => call(self.builder.chain(std::str::from_utf8(name).ok()?)),
            _ => Verdict::Other,
        })
    }
}

/// Reports whether this can be a table's name: `filter`, `nat`.
fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Parses `[packets:bytes] ` before a rule. Returns both numbers, if they are valid, and the rest. A rule saved without counters has
/// counted nothing.
fn counters(line: &[u8]) -> Option<(Option<Count>, &[u8])> {
    let Some(line) = line.strip_prefix(b"[") else { return Some((Some(Count::default()), line)) };
    let colon = line.iter().position(|&b| b == b':')?;
    let close = colon + line[colon..].iter().position(|&b| b == b']')?;
    let count = number(&line[..colon]).zip(number(&line[colon + 1..close])).map(|(packets, bytes)| Count { packets, bytes, handle: 0 });
    Some((count, &line[close + 1..]))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// Parses `0x10000/0x20000`. A value alone has a mask of all 32 bits.
fn value_and_mask(text: &[u8]) -> Option<(u32, u32)> {
    let mut parts = text.splitn(2, |&b| b == b'/');
    let value = mark(parts.next()?)?;
    Some((value, parts.next().map_or(Some(u32::MAX), mark)?))
}

fn mark(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Parses `--set-xmark value/mask`, which is how iptables-save prints all forms of the target.
fn set_mark(words: &mut Words) -> Option<Verdict> {
    match words.next()??.as_ref() {
        b"--set-xmark" | b"--set-mark" => {
            let (value, mask) = value_and_mask(&words.next()??)?;
            Some(Verdict::SetMark { value, mask })
        }
        _ => Some(Verdict::Other),
    }
}

fn ctstate(states: &[u8], negated: bool) -> CtState {
    match states {
        _ if negated => CtState::Other,
        b"RELATED,ESTABLISHED" | b"ESTABLISHED,RELATED" => CtState::Established,
        b"INVALID" => CtState::Invalid,
        _ => CtState::Other,
    }
}

/// The words of a line, without quotes (`xtables_save_string`). A quote that is not closed gives `Some(None)`.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = Option<Cow<'a, [u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|&b| b != b' ')?;
        let text = &self.0[start..];
        if text[0] == b'"' {
            return Some(self.quoted(&text[1..]));
        }
        let end = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
        self.0 = &text[end..];
        Some(Some(Cow::Borrowed(&text[..end])))
    }
}

impl<'a> Words<'a> {
    fn quoted(&mut self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let special = |text: &[u8]| text.iter().position(|&b| b == b'"' || b == b'\\');
        let end = special(text)?;
        if text[end] == b'"' {
            self.0 = &text[end + 1..];
            return Some(Cow::Borrowed(&text[..end]));
        }
        let (mut word, mut rest) = (Vec::new(), text);
        loop {
            let end = special(rest)?;
            word.extend_from_slice(&rest[..end]);
            if rest[end] == b'"' {
                self.0 = &rest[end + 1..];
                return Some(Cow::Owned(word));
            }
            word.push(*rest.get(end + 1)?);
            rest = &rest[end + 2..];
        }
    }
}

#[cfg(test)]
mod tests;
