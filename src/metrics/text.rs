//! The Prometheus text format 0.0.4. Pure: names, labels and values in, bytes out.

use std::io::Write;

use crate::config::Families;

#[derive(Debug, Default)]
pub struct Text {
    out: Vec<u8>,
    series: u64,
    families: Families,
}

impl Text {
    pub fn within(mut memory: Vec<u8>, families: &Families) -> Self {
        memory.clear();
        Text { out: memory, series: 0, families: families.clone() }
    }

    /// Begins a metric. Its samples must follow immediately. Nothing is written for a family that is left out.
    pub fn metric<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Metric<'a> {
        let is_written = !self.families.leave_out(name);
        if !is_written {
            return Metric { text: self, name, is_written };
        }
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to memory cannot fail.
        _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { text: self, name, is_written }
    }

    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Value) {
        self.metric(name, kind, help).sample("", value);
    }

    pub fn series(&self) -> u64 {
        self.series
    }

    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

#[derive(Debug)]
pub struct Metric<'a> {
    text: &'a mut Text,
    name: &'a str,
    is_written: bool,
}

impl Metric<'_> {
    /// `labels` is what goes between the braces, made by [`Labels`].
    pub fn sample(&mut self, labels: &str, value: impl Value) {
        self.parts(&[labels], value);
    }

    pub fn parts(&mut self, labels: &[&str], value: impl Value) {
        if !self.is_written {
            return;
        }
        let out = &mut self.text.out;
        append(out, self.name);
        if labels.iter().any(|part| !part.is_empty()) {
            out.push(b'{');
            labels.iter().for_each(|part| append(out, part));
            out.push(b'}');
        }
        out.push(b' ');
        value.write(out);
        out.push(b'\n');
        self.text.series += 1;
    }
}

/// Appends a short text in steps of a fixed size, which compile to single moves. A scrape of a large node copies a third of a million
/// such texts, and musl's memcpy takes longer to start than each of them takes to copy.
fn append(out: &mut Vec<u8>, text: &str) {
    let (steps, rest) = text.as_bytes().as_chunks::<16>();
    steps.iter().for_each(|step| out.extend_from_slice(step));
    let (steps, rest) = rest.as_chunks::<4>();
    steps.iter().for_each(|step| out.extend_from_slice(step));
    rest.iter().for_each(|byte| out.push(*byte));
}

pub trait Value {
    fn write(&self, out: &mut Vec<u8>);
}

impl Value for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        // This writes digits directly: formatting machinery would be noticeable at 50,000 samples, and so would copies of variable length.
        const LONGEST: usize = 20;
        let (mut digits, mut rest) = ([0; LONGEST], *self);
        let length = self.checked_ilog10().map_or(1, |power| power as usize + 1);
        for digit in digits[..length].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.truncate(out.len() - (LONGEST - length));
    }
}

impl Value for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(if *self { b'1' } else { b'0' });
    }
}

impl Value for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        _ = write!(out, "{self}");
    }
}

/// The length of most labels, in bytes.
const USUAL: usize = 160;

/// Labels in the order in which they are added, joined by commas.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(String);

impl Labels {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match self.0.is_empty() {
            // Reserves what most labels need in the end.
            true => self.0.reserve(USUAL),
            false => self.0.push(','),
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        escape(value, &mut self.0);
        self.0.push('"');
        self
    }

    pub fn with_if(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends a label's value: `\`, `"` and line feed are escaped.
fn escape(value: &str, out: &mut String) {
    let mut rest = value;
    // All three are single bytes, which never occur inside another character.
    while let Some(place) = rest.bytes().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        out.push_str(&rest[..place]);
        out.push_str(match rest.as_bytes()[place] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &rest[place + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text() {
        let mut text = Text::default();
        let mut metric = text.metric("a_total", "counter", "Line\nwith \\.");
        metric.sample("", 0u64);
        metric.parts(&[Labels::default().with("x", "1").as_str(), ",y=\"2\""], u64::MAX);
        text.single("b", "gauge", "B.", 1.5);
        text.single("c", "gauge", "C.", true);
        assert_eq!(text.series(), 4);
        let expected = "# HELP a_total Line\\nwith \\\\.\n# TYPE a_total counter\na_total 0\na_total{x=\"1\",y=\"2\"} 18446744073709551615\n\
                        # HELP b B.\n# TYPE b gauge\nb 1.5\n# HELP c C.\n# TYPE c gauge\nc 1\n";
        assert_eq!(String::from_utf8(text.finish()).unwrap(), expected);
    }

    #[test]
    fn label_values_are_escaped() {
        let labels = Labels::default().with("a", "x\"y\\z\n<é>").with("b", "");
        assert_eq!(labels.as_str(), r#"a="x\"y\\z\n<é>",b="""#);
    }
}
