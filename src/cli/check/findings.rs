//! The findings of `check`, line by line, and their overall result. Pure.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;

use crate::cli::terminal;
use crate::os::plain;

/// The severity of a finding. The worst one is the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Neither good nor bad.
    Note,
    /// Something is missing or uncertain, but the exporter works.
    Warn,
    /// The exporter does not work, or its numbers are unreliable.
    Wrong,
}

impl Level {
    fn mark(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warn => "warn",
            Level::Wrong => "WRONG",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was checked: `rules`, `datastore`, … from a fixed set of words.
    pub subject: &'static str,
    pub text: String,
    hint: Cow<'static, str>,
    /// In a cluster, the nodes that have this finding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<String>,
}

impl Finding {
    /// Adds what to do about it.
    pub fn hint(&mut self, hint: impl Into<Cow<'static, str>>) -> &mut Self {
        self.hint = hint.into();
        self
    }
}

#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

#[derive(Debug, Serialize)]
struct Answer<'a> {
    version: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    result: Level,
    findings: &'a [Finding],
}

impl Findings {
    pub fn ok(&mut self, subject: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Ok, subject, text.into())
    }

    pub fn note(&mut self, subject: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Note, subject, text.into())
    }

    pub fn warn(&mut self, subject: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Warn, subject, text.into())
    }

    pub fn wrong(&mut self, subject: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Wrong, subject, text.into())
    }

    pub fn of_nodes(&mut self, level: Level, subject: &'static str, text: String, hint: String, nodes: Vec<String>) -> &mut Finding {
        let finding = self.add(level, subject, text).hint(hint);
        finding.nodes = nodes;
        finding
    }

    fn add(&mut self, level: Level, subject: &'static str, text: String) -> &mut Finding {
        let place = self.0.len();
        self.0.push(Finding { level, subject, text: plain(&text), hint: Cow::default(), nodes: Vec::new() });
        &mut self.0[place]
    }

    /// Returns `ok`, `warn` or `wrong`, the worst level of all findings. Notes do not count.
    pub fn result(&self) -> Level {
        self.0.iter().map(|finding| finding.level).filter(|level| *level != Level::Note).max().unwrap_or(Level::Ok)
    }

    pub fn text(&self) -> String {
        let (mut text, harmless) = (String::new(), |text: &str| terminal::safe(text, 1000));
        for Finding { level, subject, text: found, hint, nodes } in &self.0 {
            let of = if nodes.is_empty() { String::new() } else { format!("{}: ", super::cluster::named(nodes)) };
            _ = writeln!(text, "{:<6}{subject}: {of}{}", level.mark(), harmless(found));
            if !hint.is_empty() {
                _ = writeln!(text, "      {}", harmless(hint));
            }
        }
        let count = |level| self.0.iter().filter(|finding| finding.level == level).count();
        let verdict = match (count(Level::Wrong), count(Level::Warn)) {
            (0, 0) => "All is well.".to_owned(),
            (0, 1) => "Nothing is wrong, with 1 warning.".to_owned(),
            (0, warnings) => format!("Nothing is wrong, with {warnings} warnings."),
            (1, _) => "1 thing is wrong.".to_owned(),
            (wrong, _) => format!("{wrong} things are wrong."),
        };
        text + "\n" + &verdict + "\n"
    }

    pub fn json(&self, node: &str) -> Result<String, String> {
        crate::cli::json(&Answer { version: env!("CARGO_PKG_VERSION"), node, result: self.result(), findings: &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_result_and_notes_do_not_count() {
        let mut findings = Findings::default();
        let mut after = |add: fn(&mut Findings)| {
            add(&mut findings);
            (findings.result(), findings.text().lines().last().unwrap_or_default().to_owned())
        };
        assert_eq!(after(|_| {}), (Level::Ok, "All is well.".into()));
        assert_eq!(after(|findings| _ = findings.ok("rules", "read")), (Level::Ok, "All is well.".into()));
        assert_eq!(after(|findings| _ = findings.note("exporter", "none")), (Level::Ok, "All is well.".into()));
        assert_eq!(after(|findings| _ = findings.warn("rules", "odd")), (Level::Warn, "Nothing is wrong, with 1 warning.".into()));
        assert_eq!(after(|findings| _ = findings.wrong("rules", "gone").hint("look")), (Level::Wrong, "1 thing is wrong.".into()));
        assert_eq!(after(|findings| _ = findings.ok("rules", "read")), (Level::Wrong, "1 thing is wrong.".into()));
    }

    #[test]
    fn json_is_for_programs_and_text_for_terminals() {
        let mut findings = Findings::default();
        findings.wrong("rules", "a\u{1b}[2J").hint("do it");
        assert_eq!(findings.text(), "WRONG rules: a\\u{1b}[2J\n      do it\n\n1 thing is wrong.\n");
        let json: serde_json::Value = serde_json::from_str(&findings.json("n1").unwrap()).unwrap();
        let finding = serde_json::json!({"level": "wrong", "subject": "rules", "text": "a\u{1b}[2J", "hint": "do it"});
        assert_eq!((&json["node"], &json["result"], &json["findings"]), (&"n1".into(), &"wrong".into(), &serde_json::json!([finding])));
    }
}
