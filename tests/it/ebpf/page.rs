//! The page on a node with the eBPF dataplane: it says what is unknown, and sums are complete.

use super::told::{Node, WEB_1};
use super::*;
use crate::support::browser::Browser;

#[test]
fn the_page_says_what_this_dataplane_tells() {
    let test = "the page on the eBPF dataplane";
    on_a_node(test, || {
        let Some(browser) = Browser::start(test) else { return };
        let node = Node::new();
        let program = Program::start(command());
        scrape(program.port());
        node.count(1);
        scrape(program.port());
        let url = format!("http://127.0.0.1:{}", program.port());
        browser.open(&format!("{url}/#/workload/{WEB_1}"));
        browser.until("document.querySelectorAll('.direction').length === 2");
        let text = |selector: &str| browser.text(selector);
        // Each policy has 1 packet for certain. 6 more belong to one of them or to a profile.
        assert!(text(".legend").contains("8 accepted by policy"), "{}", text(".legend"));
        let ingress = text(".direction");
        for expected in ["platform.guard", "≥ 1", "One of them", "it is unknown which one", "A policy, or none"] {
            assert!(ingress.contains(expected), "{expected}: {ingress}");
        }
        assert!(text(".notes").contains("eBPF dataplane counts a policy’s packets for the whole node"), "{}", text(".notes"));
        assert!(!text(".notes").contains("chain"), "{}", text(".notes"));

        browser.run("location.hash = '#/workload/cali3'");
        browser.until("document.querySelector('.legend').innerText.includes('20 accepted by policy')");
        assert!(text(".direction").contains("eBPF does not count each of them for each workload"));

        browser.run("location.hash = '#/workloads'");
        browser.until("document.querySelectorAll('main tbody tr').length === 4");
        browser.run("location.hash = '#/drops'");
        browser.until("document.querySelectorAll('main tbody tr').length === 6");
        assert!(text("main").contains("does not show which policy drops a packet"), "{}", text("main"));
        browser.run("location.hash = '#/policies'");
        browser.until("document.querySelectorAll('main tbody tr').length === 3");
        browser.run("location.hash = '#/hosts'");
        browser.until("document.querySelector('main').innerText.includes('does not count host endpoints')");
        browser.check_quiet(&url);
    });
}
