//! Parses the text of `/metrics`. A duplicate series, a malformed line, or a difference from docs/metrics.md is an error.

use std::collections::BTreeMap;

use super::documented;
use crate::http;

/// Samples by name and labels as written: `name{a="x"}`.
pub type Samples = BTreeMap<String, f64>;

#[track_caller]
pub fn scrape(port: u16) -> Samples {
    let answer = http::get(port, "/metrics").unwrap();
    assert_eq!(answer.status, 200);
    documented::compare(answer.text());
    parse(answer.text())
}

#[track_caller]
pub fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'));
    let mut samples = Samples::new();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(types.insert(kind.split(' ').next().unwrap(), ()).is_none(), "{line}: the metric comes twice");
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let name = series.split('{').next().unwrap();
        assert!(types.contains_key(name), "{name} comes without its type");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }
    samples
}

/// Returns the samples of one metric that have all these labels.
pub fn with<'a>(samples: &'a Samples, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a String, f64)> {
    samples.iter().filter_map(move |(series, value)| {
        let rest = series.strip_prefix(name)?;
        let body = if rest.is_empty() { "" } else { rest.strip_prefix('{')?.strip_suffix('}')? };
        let has = |label: &(&str, &str)| {
            let wanted = format!("{}=\"{}\"", label.0, label.1);
            body.starts_with(&wanted) || body.contains(&format!(",{wanted}"))
        };
        labels.iter().all(has).then_some((series, *value))
    })
}

/// Returns the value of the one sample with these labels.
#[track_caller]
pub fn one(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let found: Vec<_> = with(samples, name, labels).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].1
}

/// Parses the labels of a series. No value in the tests contains a quotation mark.
pub fn labels(series: &str) -> BTreeMap<&str, &str> {
    let body = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches("\"}"));
    body.split("\",").filter_map(|label| label.split_once("=\"")).collect()
}
