//! The page at `/`: its files, which are part of the program. What a browser may do with them is said by [`POLICY`].
//!
//! The page asks the API (see `docs/api.md`) and shows what that answers. All of its addresses are relative, so that it also works
//! behind a proxy that puts it below a path.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub content_type: &'static str,
    pub content: &'static [u8],
}

/// The page's own files and API, nothing inline, nothing from elsewhere: a name that is taken for markup can neither run nor load anything.
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
        "toolbar.js" "words.js" "workload.js" "workloads.js";
};

/// `/` is the page; its other files are below `/page/`.
pub fn file(path: &str) -> Option<File> {
    let name = if path == "/" { INDEX } else { path.strip_prefix("/page/").filter(|name| *name != INDEX)? };
    FILES.iter().find(|file| file.name == name).copied()
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

    /// Nothing that could take a name for markup or code, or that asks anybody else.
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
    fn unknown_paths_are_no_files() {
        assert_eq!(file("/page/"), None);
        assert_eq!(file("/page/../Cargo.toml"), None);
        assert_eq!(file("/index.html"), None);
        assert_eq!(file("/page/index.html"), None);
    }
}
