//! The page at `/`: its files, which are part of the program. What a browser may do with them is said by [`POLICY`].
//!
//! The page asks the API (see `docs/api.md`) and shows what that answers. All of its addresses are relative, so that it also works
//! behind a proxy that puts it below a path.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub path: &'static str,
    pub content_type: &'static str,
    pub content: &'static [u8],
}

/// The content security policy of the page: its own files and its own API, nothing inline, nothing from elsewhere. Should a name from
/// the cluster ever be taken for markup, it can neither run nor load anything.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal $file:literal $content_type:ident)*) => {
        &[$(File { path: $path, content_type: $content_type, content: include_bytes!(concat!("web/", $file)) }),*]
    };
}

const FILES: &[File] = files! {
    "/" "index.html" HTML
    "/page/style.css" "style.css" STYLE
    "/page/icon.svg" "icon.svg" IMAGE
    "/page/early.js" "early.js" SCRIPT
    "/page/app.js" "app.js" SCRIPT
    "/page/cells.js" "cells.js" SCRIPT
    "/page/dom.js" "dom.js" SCRIPT
    "/page/drops.js" "drops.js" SCRIPT
    "/page/format.js" "format.js" SCRIPT
    "/page/history.js" "history.js" SCRIPT
    "/page/hosts.js" "hosts.js" SCRIPT
    "/page/model.js" "model.js" SCRIPT
    "/page/pipeline.js" "pipeline.js" SCRIPT
    "/page/policies.js" "policies.js" SCRIPT
    "/page/policy.js" "policy.js" SCRIPT
    "/page/poll.js" "poll.js" SCRIPT
    "/page/route.js" "route.js" SCRIPT
    "/page/sparkline.js" "sparkline.js" SCRIPT
    "/page/status.js" "status.js" SCRIPT
    "/page/steps.js" "steps.js" SCRIPT
    "/page/table.js" "table.js" SCRIPT
    "/page/toolbar.js" "toolbar.js" SCRIPT
    "/page/words.js" "words.js" SCRIPT
    "/page/workload.js" "workload.js" SCRIPT
    "/page/workloads.js" "workloads.js" SCRIPT
};

pub fn file(path: &str) -> Option<File> {
    FILES.iter().find(|file| file.path == path).copied()
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
        for File { path, content, .. } in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for word in forbidden {
                assert!(!text.contains(word), "{path}: {word}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{path} names another server");
        }
    }

    #[test]
    fn unknown_paths_are_no_files() {
        assert_eq!(file("/page/"), None);
        assert_eq!(file("/page/../Cargo.toml"), None);
        assert_eq!(file("/index.html"), None);
    }
}
