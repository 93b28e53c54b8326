//! The chart's README: its table is generated from the comments and defaults of values.yaml, and docs/chart.md names only values that
//! exist. `GOLDEN=write cargo test deploy::chart::readme` writes the README again.

use std::fs;

use serde_json::Value;

use super::super::{path, text};

const VALUES: &str = "deploy/helm/calico-accountant/values.yaml";
const README: &str = "deploy/helm/calico-accountant/README.md";
const BEFORE: &str = "<!-- The table is made of values.yaml: GOLDEN=write cargo test deploy::chart::readme -->\n";

/// A value, or a group of values with a comment: its path, its default if it is a value, its comment.
struct Row {
    path: Vec<String>,
    default: Option<Value>,
    comment: String,
}

/// The rows in the order of the file. A line is `key: value`, `key:` before a group or a list, an item of a list, or a comment.
fn rows() -> Vec<Row> {
    let (text, values): (String, Value) = (text(VALUES), yaml_serde::from_str(&text(VALUES)).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut rows, mut path, mut comment) = (Vec::new(), Vec::<String>::new(), Vec::new());
    let mut inside = usize::MAX;
    for (number, line) in lines.iter().enumerate() {
        let content = line.trim_start();
        if content.is_empty() {
            comment.clear();
        } else if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
        } else if indent(line) <= inside {
            inside = usize::MAX;
            let (key, rest) = content.split_once(':').unwrap_or_else(|| panic!("{line}"));
            path.truncate(indent(line) / 2);
            path.push(key.to_owned());
            let next = lines[number + 1..].iter().find(|line| !line.trim_start().starts_with('#'));
            let is_group = rest.trim().is_empty() && !next.is_some_and(|next| next.trim_start().starts_with("- "));
            // Fields below these are Kubernetes' own.
            let is_leaf = !is_group || path == ["affinity"];
            if is_leaf {
                inside = indent(line);
            }
            let default = is_leaf.then(|| path.iter().fold(&values, |value, key| &value[key]).clone());
            if is_leaf || !comment.is_empty() {
                rows.push(Row { path: path.clone(), default, comment: comment.join(" ") });
            }
            comment.clear();
        }
    }
    rows
}

/// A value as YAML on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

fn table() -> String {
    let mut table = String::from("| value | default | what it is for |\n|---|---|---|\n");
    for Row { path, default, comment } in rows() {
        let default = default.map(|value| flow(&value)).filter(|text| !text.is_empty()).map(|text| format!("`{text}`")).unwrap_or_default();
        let comment = comment.replace('|', "\\|").replace('<', "&lt;");
        table += &format!("| `{}` | {} | {comment} |\n", path.join("."), default.replace('|', "\\|"));
    }
    table
}

#[test]
fn the_readmes_table_is_made_of_the_values() {
    let readme = text(README);
    let (head, _) = readme.split_once(BEFORE).unwrap_or_else(|| panic!("{README} has no line {BEFORE}"));
    let expected = format!("{head}{BEFORE}\n{}", table());
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(path(README), &expected).unwrap();
    }
    assert!(text(README) == expected, "{README} is not up to date: GOLDEN=write cargo test deploy::chart::readme");
}

/// Each value is in the table. It or its group has a description.
#[test]
fn no_value_is_left_out() {
    let rows = rows();
    let mut leaves = Vec::new();
    collect(&yaml_serde::from_str(&text(VALUES)).unwrap(), &mut Vec::new(), &mut leaves);
    assert!(leaves.len() > 100, "{}", leaves.len());
    for leaf in leaves {
        let row = |row: &Row| row.default.is_some() && leaf.starts_with(&row.path);
        assert!(rows.iter().any(row), "{leaf:?}");
    }
}

fn collect(value: &Value, path: &mut Vec<String>, leaves: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key.clone());
                collect(value, path, leaves);
                path.pop();
            }
        }
        _ => leaves.push(path.clone()),
    }
}

/// Each name in the third column of the comparison is an existing value.
#[test]
fn the_comparison_names_values_that_there_are() {
    let values: Value = yaml_serde::from_str(&text(VALUES)).unwrap();
    let page = text("docs/chart.md");
    let (_, section) = page.split_once("\n## Compared with two other charts\n").unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ") && !line.contains("| theirs |")).collect();
    assert!(rows.len() > 40, "{}", rows.len());
    for row in rows {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, ours] = columns[..] else { panic!("not three columns: {row}") };
        assert!(!["", "no", "–"].contains(&ours), "worse without a reason: {row}");
        let quoted = ours.split('`').skip(1).step_by(2);
        let is_value = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains([' ', '/', '-']);
        for name in quoted.filter(is_value) {
            let found = name.split('.').try_fold(&values, |value, key| value.get(key));
            assert!(found.is_some(), "{name} is no value: {row}");
        }
    }
}
