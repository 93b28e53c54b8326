//! The documents: links lead somewhere, tables are whole, English is plain, and commands run as they stand there. All but the last
//! needs nothing else: `cargo test --test it documents::pages documents::words`, as `make lint` does.

mod commands;
mod pages;
mod words;

use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A document in Markdown.
struct Page {
    /// From the root of the project.
    path: String,
    text: String,
}

/// Every document of the project.
fn pages() -> Vec<Page> {
    let (mut pages, mut folders) = (Vec::new(), vec![PathBuf::new(), "docs".into()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() && folder.starts_with("docs") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page { text: std::fs::read_to_string(entry.path()).unwrap(), path: path.to_str().unwrap().to_owned() });
            }
        }
    }
    assert!(pages.len() > 20);
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    pages
}

/// A block of code.
struct Block<'a> {
    language: &'a str,
    text: String,
    /// The line that it begins in, from 1, and the line before that which is not empty.
    line: usize,
    before: &'a str,
}

impl Page {
    /// Numbered lines outside of blocks of code.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            inside ^= is_fence;
            (!inside && !is_fence).then_some((index + 1, line))
        })
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let (mut blocks, mut before, mut open): (Vec<Block>, _, bool) = (Vec::new(), "", false);
        for (index, line) in self.text.lines().enumerate() {
            match (line.trim().strip_prefix("```"), open) {
                (Some(language), false) => blocks.push(Block { language, text: String::new(), line: index + 1, before }),
                (None, true) => blocks.last_mut().unwrap().text += &format!("{line}\n"),
                _ => {}
            }
            open ^= line.trim().starts_with("```");
            before = if line.trim().is_empty() { before } else { line };
        }
        blocks
    }
}

/// The commands that a test runs: blocks behind `<!-- run by TEST -->`.
pub fn run_by(test: &str) -> Vec<String> {
    let mark = format!("<!-- run by {test} -->");
    let found: Vec<String> = pages()
        .iter()
        .flat_map(|page| page.blocks().into_iter().filter(|block| block.before == mark).map(|block| block.text).collect::<Vec<_>>())
        .collect();
    assert!(!found.is_empty(), "no document has {mark}");
    found
}
