//! What a PromQL expression reads: its metrics, and the labels in its matchers. Knows enough of the language for our own expressions.

#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Names of the labels in its matchers.
    pub labels: Vec<String>,
}

/// Words that can be where a metric's name could be.
const WORDS: [&str; 15] =
    ["by", "on", "without", "ignoring", "and", "or", "unless", "offset", "bool", "sum", "max", "min", "count", "group", "topk"];

/// Words that are followed by a list of labels in parentheses.
const LISTS: [&str; 4] = ["by", "on", "without", "ignoring"];

/// The selectors, in the order in which they are written.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let (mut found, mut rest) = (Vec::new(), expression);
    while let Some(first) = rest.chars().next() {
        if first == '"' || first == '\'' || first == '`' {
            rest = after_string(rest);
        } else if first == '[' {
            rest = rest.split_once(']').map_or("", |(_, rest)| rest);
        } else if is_word(first) {
            let (word, after) = split_word(rest);
            rest = after.trim_start();
            if LISTS.contains(&word) {
                rest = rest.split_once(')').map_or("", |(_, rest)| rest);
            } else if !WORDS.contains(&word) && !rest.starts_with('(') && !first.is_ascii_digit() {
                let (labels, after) = matchers(rest);
                found.push(Selector { metric: word.to_owned(), labels });
                rest = after;
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()))
}

/// The rest of a text after the string that it begins with.
fn after_string(text: &str) -> &str {
    let (quote, inside) = text.split_at(1);
    let mut escaped = false;
    for (index, c) in inside.char_indices() {
        if c.to_string() == quote && !escaped {
            return &inside[index + 1..];
        }
        escaped = c == '\\' && !escaped && quote != "`";
    }
    ""
}

/// The labels of the `{…}` that a text may begin with, and the rest after it.
fn matchers(text: &str) -> (Vec<String>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else { return (Vec::new(), text) };
    let mut labels = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '}' {
            return (labels, &rest[1..]);
        } else if first == '"' || first == '`' {
            rest = after_string(rest);
        } else if is_word(first) {
            let (label, after) = split_word(rest);
            labels.push(label.to_owned());
            rest = after;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    (labels, rest)
}

#[test]
fn selectors_of_an_expression() {
    let selector = |metric: &str, labels: &[&str]| Selector { metric: metric.into(), labels: labels.iter().map(|&l| l.into()).collect() };
    let expression = r#"topk(5, sum by (namespace, pod) (rate(drops_total{pod=~"a}\"b",reason!=`x\`}[5m])) > 0.5) or vector(0)"#;
    assert_eq!(selectors(expression), [selector("drops_total", &["pod", "reason"])]);
    let expression = "(a:b:rate1h{x=\"1\"} offset 1d > 1) unless on (policy) (c >= 0.1 * time() - d)";
    assert_eq!(selectors(expression), [selector("a:b:rate1h", &["x"]), selector("c", &[]), selector("d", &[])]);
}
