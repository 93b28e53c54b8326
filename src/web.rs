//! The page at `/`: its files, which are compiled into the program. [`POLICY`] limits what a browser may do with them.
//!
//! The page requests data from the API (see `docs/api.md`). All of its addresses are relative, so that it also works behind a proxy that
//! serves it below a path.

use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub content_type: &'static str,
    pub content: &'static [u8],
}

/// Allows only the page's own files and API, nothing inline, nothing from elsewhere. A name that is mistaken for markup can neither run nor
/// load anything.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! files {
    ($($content_type:literal: $($name:literal)*;)*) => {
        &[$($(File { name: $name, content_type: $content_type, content: include_bytes!(concat!("web/", $name)) }),*),*]
    };
}

const INDEX: &str = "index.html";

const FILES: &[File] = files! {
    "text/html; charset=utf-8": "index.html";
    "text/css; charset=utf-8": "style.css";
    "image/svg+xml": "icon.svg";
    "text/javascript; charset=utf-8":
        "early.js" "app.js" "cells.js" "dom.js" "drops.js" "export.js" "format.js" "hero.js" "history.js" "hosts.js" "model.js"
        "pipeline.js" "policies.js" "policy.js" "poll.js" "route.js" "search.js" "sparkline.js" "status.js" "steps.js" "table.js"
        "toolbar.js" "witnesses.js" "words.js" "workload.js" "workloads.js";
};

/// Returns a file by its path. `/` is the page, and its other files are below `/page/`. The alerts link to `/runbook`.
pub fn file(path: &str) -> Option<File> {
    if path == "/runbook" {
        return Some(File { name: "runbook", content_type: "text/html; charset=utf-8", content: runbook().as_bytes() });
    }
    let name = if path == "/" { INDEX } else { path.strip_prefix("/page/").filter(|name| *name != INDEX)? };
    FILES.iter().find(|file| file.name == name).copied()
}

/// Returns `docs/alerts.md` as HTML, with an anchor before each alert.
fn runbook() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| {
        let text = include_str!("../docs/alerts.md").replace('&', "&amp;").replace('<', "&lt;");
        let line = |line: &str| match line.strip_prefix("## ") {
            Some(alert) => format!("</pre>\n<h2 id=\"{}\">{alert}</h2>\n<pre>", alert.to_lowercase()),
            None => format!("{line}\n"),
        };
        let head = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>calico-accountant: runbook</title>\n<pre>";
        format!("{head}{}</pre>\n", text.lines().map(line).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") };
            let found = file(&path).unwrap_or_else(|| panic!("{path} is not served"));
            assert_eq!(found.content, std::fs::read(format!("{folder}/{name}")).unwrap());
        }
    }

    /// Nothing that could interpret a name as markup or code, or that contacts another server.
    #[test]
    fn text_stays_text_and_nothing_is_fetched_from_elsewhere() {
        let forbidden = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "srcdoc"];
        for File { name, content, .. } in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for word in forbidden {
                assert!(!text.contains(word), "{name}: {word}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{name} names another server");
        }
    }

    #[test]
    fn the_runbook_has_a_place_for_each_alert() {
        let found = file("/runbook").unwrap();
        let page = std::str::from_utf8(found.content).unwrap();
        assert!(page.contains("<h2 id=\"calicorulesvanished\">CalicoRulesVanished</h2>"));
        let source = include_str!("../docs/alerts.md");
        assert_eq!(page.matches("<h2 id=").count(), source.lines().filter(|line| line.starts_with("## ")).count());
        assert_eq!(page.matches('<').count(), 7 + 4 * page.matches("<h2 id=").count(), "only our own markup");
    }

    #[test]
    fn unknown_paths_are_no_files() {
        assert_eq!(file("/page/"), None);
        assert_eq!(file("/page/../Cargo.toml"), None);
        assert_eq!(file("/index.html"), None);
        assert_eq!(file("/page/index.html"), None);
    }
}
