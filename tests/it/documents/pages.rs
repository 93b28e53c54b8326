//! Links, anchors and tables. Pure.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Page, ROOT, pages};

/// The targets of a line's links and pictures; not those in code.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let outside = line.split('`').step_by(2);
    // A link's text may be code: then its target begins the next piece.
    outside.flat_map(|piece| piece.split("](").skip(1)).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// As GitHub makes them of headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in page.prose() {
        let Some(heading) = line.strip_prefix('#').map(|line| line.trim_start_matches('#').trim()) else { continue };
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
        let taken = (1..).map(|n| format!("{anchor}-{n}")).find(|name| !anchors.contains(name)).unwrap();
        let name = if anchors.contains(&anchor) { taken } else { anchor };
        anchors.insert(name);
    }
    anchors
}

/// A path without its `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{}: out of the project", path.display()),
            part => plain.push(part),
        }
    }
    plain
}

/// What is wrong with the links of a page.
fn broken(page: &Page, all: &[Page]) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, link) in page.prose().flat_map(|(number, line)| links(line).map(move |link| (number, link))) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { page.path.clone().into() } else { plain(&Path::new(&page.path).with_file_name(file)) };
        let is_there = Path::new(ROOT).join(&target).exists() || all.iter().any(|other| Path::new(&other.path) == target);
        let has_anchor = |anchor: &str| all.iter().any(|other| Path::new(&other.path) == target && anchors(other).contains(anchor));
        if !is_there || !anchor.is_none_or(has_anchor) {
            broken.push(format!("{}:{number}: {link}", page.path));
        }
    }
    broken
}

/// How many cells a line of a table has. A bar in code is a bar, too.
fn cells(line: &str) -> usize {
    line.trim().replace("\\|", "").matches('|').count() - 1
}

/// Lines of tables that are not shown as such: of another width than their heading, or behind an empty line.
fn torn(page: &Page) -> Vec<String> {
    let lines: Vec<(usize, &str)> = page.prose().collect();
    let mut torn = Vec::new();
    let is_row = |index: usize| lines.get(index).is_some_and(|(_, line)| line.trim_start().starts_with('|'));
    let is_rule = |index: usize| is_row(index) && lines[index].1.chars().all(|c| "|-: ".contains(c));
    let mut width = None;
    for (index, (number, line)) in lines.iter().copied().enumerate() {
        let begins = is_row(index) && (index == 0 || !is_row(index - 1));
        if begins {
            width = is_rule(index + 1).then(|| cells(line));
        }
        if is_row(index) && (width != Some(cells(line)) || !line.trim_end().ends_with('|')) {
            torn.push(format!("{}:{number}: {line}", page.path));
        }
    }
    torn
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let broken: Vec<String> = pages.iter().flat_map(|page| broken(page, &pages)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_readme_leads_to_every_page() {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == "README.md").unwrap();
    let linked: BTreeSet<&str> = readme.prose().flat_map(|(_, line)| links(line)).map(|link| link.split('#').next().unwrap()).collect();
    for page in &pages {
        let is_linked = linked.contains(&*page.path) || linked.iter().any(|link| Path::new(&page.path).parent() == Some(Path::new(link)));
        assert!(is_linked || page.path == "README.md", "README.md does not link {}", page.path);
    }
}

#[test]
fn tables_are_whole() {
    let torn: Vec<String> = pages().iter().flat_map(torn).collect();
    assert!(torn.is_empty(), "{torn:#?}");
}

/// What a merge leaves when two sides have moved a paragraph.
#[test]
fn no_line_of_prose_is_there_twice() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        for (number, line) in page.prose().filter(|(_, line)| line.len() > 60 && !line.starts_with("<!--")) {
            assert!(seen.insert(line.trim().to_owned()), "{}:{number} is there twice: {line}", page.path);
        }
    }
}

#[test]
fn faults_are_found() {
    let page = |text: &str| Page { path: "docs/x.md".into(), text: text.into() };
    let all = [page("# A b\n## `c --d`\n# A b\n")];
    for (text, good) in [
        ("[x](x.md#a-b) [`x`](x.md#c---d) ![x](api.md) [x](../README.md) [x](https://x) `[x](y)` [x](x.md#a-b-1)", true),
        ("[x](x.md#a-c)", false),
        ("[`x`](y.md)", false),
        ("[x](README.md)", false),
        ("[x](#a)", false),
        ("```\n[x](y)\n```", true),
    ] {
        assert_eq!(broken(&page(text), &all).is_empty(), good, "{text}");
    }
    for (text, good) in [
        ("| a | b |\n|---|---|\n| 1 | `x\\|y` |\n\n```\n| a\n```\n", true),
        ("| a | b |\n|---|---|\n| 1 |\n", false),
        ("| a | b |\n|---|---|\n| 1 | `x|y` |\n", false),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n", false),
        ("| a | b |\n|---|\n", false),
        ("| a |\n|---|\n| 1\n", false),
    ] {
        assert_eq!(torn(&page(text)).is_empty(), good, "{text}");
    }
}
