//! Every view as axe-core judges it, on a phone and on a desktop, light and dark, and how much the page jumps while it loads.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::can_run;
use crate::support::demo::Demo;
use crate::support::netns::Namespace;

/// The script that `scripts/axe` downloads and checks.
pub fn script() -> Option<String> {
    let name = include_str!("axe.sha512").split_whitespace().nth(1).unwrap().replace(".tgz", ".js");
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    std::fs::read_to_string(cache.join("calico-accountant").join(name)).ok()
}

const VIEWS: [&str; 10] = [
    "drops",
    "drops?by=policy",
    "drops?at=2026-01-01T00:00:00Z",
    "workloads",
    "workloads?q=nobody",
    "workload/cali751425ce827",
    "workload/nobody",
    "policies",
    "policy/shop%2Fdefault.web-deny",
    "hosts",
];

/// Rules that axe-core may leave undecided, such as the contrast of text on a surface that it cannot determine.
const UNTOLD: [&str; 3] = ["color-contrast", "th-has-data-cells", "aria-required-children"];

/// The most that may move by itself, by the window's height and area (layout shift). From 0.1 on, a page is said to jump.
const MOST_SHIFT: f64 = 0.05;

#[test]
fn every_view_can_be_read_by_everybody() {
    let test = "the page by axe-core";
    let script = script();
    if !can_run(test, script.is_some(), "scripts/axe to have been run") {
        return;
    }
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| judge(test, &script.unwrap()));
}

fn judge(test: &str, script: &str) {
    let Some(demo) = Demo::start(test) else { return };
    let Some(browser) = Browser::start(test) else { return };
    let mut wrong = Vec::new();
    for (width, height, is_phone) in [(390, 844, true), (1400, 900, false)] {
        browser.resize(width, height, is_phone);
        for dark in [false, true] {
            browser.prefer_dark(dark);
            for view in VIEWS {
                let found = look(&browser, &format!("http://{}/?{width}{dark}#/{view}", demo.address), script);
                wrong.extend(found.into_iter().map(|found| format!("{view}, {width} px, dark {dark}: {found}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong with one view.
pub fn look(browser: &Browser, url: &str, script: &str) -> Vec<String> {
    browser.open("about:blank");
    browser.open(url);
    browser.run(
        "window.shifts = [];
         new PerformanceObserver((list) => list.getEntries().forEach((entry) => entry.hadRecentInput || shifts.push(entry)))
           .observe({ type: 'layout-shift', buffered: true });",
    );
    browser.until("document.getElementById('node').innerText !== '…' && document.querySelector('main h1').innerText !== '…'");
    // By then, the content of the first two reads is shown.
    std::thread::sleep(Duration::from_millis(2500));
    let shift = browser.run("return shifts.reduce((sum, entry) => sum + entry.value, 0)").as_f64().unwrap();
    let moved = browser.run("return shifts.flatMap((entry) => entry.sources.map(({ node }) => node?.className ?? node?.nodeName)).join()");
    browser.run(script);
    let result = browser.run_async(
        "const result = await axe.run(document, { resultTypes: ['violations', 'incomplete'] });
         const told = (of) => of.map(({ id, nodes }) => [id, nodes.map(({ target, any }) => `${target}: ${any[0]?.message ?? ''}`)]);
         return { passes: result.passes.length, violations: told(result.violations), incomplete: told(result.incomplete) }",
    );
    assert!(result["passes"].as_u64().is_some_and(|passes| passes > 30), "{url}: {result}");
    let all = |of: &str| result[of].as_array().unwrap().clone();
    let untold = all("incomplete").into_iter().filter(|rule| !UNTOLD.iter().any(|known| rule[0] == json!(known)));
    let mut wrong: Vec<String> = all("violations").into_iter().chain(untold).map(|rule: Value| rule.to_string()).collect();
    if shift >= MOST_SHIFT {
        wrong.push(format!("it jumps by {shift:.3}: {moved}"));
    }
    wrong
}
