//! The page at `/` in a real Chromium: on the demo with its live traffic, on the tables of other releases, with hostile names, when
//! something is unavailable, and on a node with 250 workloads.
//!
//! `UPDATE_SCREENSHOTS=1` writes the pictures of `docs/` again. They look best with the font Inter (`fonts-inter`).

mod axe;
mod captures;
mod demo;
mod faults;
mod hostile;
mod large;
mod witnesses;

use std::path::Path;
use std::process::Command;

use crate::support::browser::Browser;

/// Saves a picture of the page for the documents, if requested.
fn picture(browser: &Browser, name: &str) {
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        browser.screenshot(&file);
        // A palette makes the files a third as large.
        _ = Command::new("pngquant").args(["--force", "--ext", ".png", "96"]).arg(file).status();
    }
}

/// The texts of all cells of a column, from top to bottom.
fn column(browser: &Browser, id: &str) -> Vec<String> {
    let texts = browser.run(&format!("return [...document.querySelectorAll('main tbody .c-{id}')].map((cell) => cell.innerText)"));
    texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Asserts that each text begins with the expected one.
#[track_caller]
fn begin_with(found: &[String], expected: &[&str]) {
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(same, "{found:?} is not {expected:?}");
}
