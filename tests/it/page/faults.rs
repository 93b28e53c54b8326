//! What the page says when something is unavailable: the kernel's counters, the datastore, the exporter itself.

use std::path::Path;
use std::time::Instant;

use crate::program::{self, Program};
use crate::sight;
use crate::support::browser::Browser;
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::netns::{Namespace, sh};

const RULES: &str = include_str!("../../../demo/fixtures/filter.rules");
const OBJECTS: &str = include_str!("../../../demo/fixtures/etcd.tsv");

#[test]
fn banners_come_and_go() {
    let test = "the page's banners";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| come_and_go(test));
}

fn come_and_go(test: &str) {
    let Some(browser) = Browser::start(test) else { return };
    let Some(mut etcd) = Etcd::plain() else { return };
    for line in OBJECTS.lines() {
        let (key, value) = line.split_once('\t').unwrap();
        etcd.put(&(key.to_owned(), value.to_owned()));
    }
    let fakes = Fakes::nft("");
    fakes.prints("iptables-nft-save", RULES);
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("BACKEND", "nft").env("NODENAME", "node1").env("ETCD_ENDPOINTS", etcd.url());
    command.env("GRAFANA_URL", "https://grafana.example.org/sub/");
    let program = Program::start(command);
    browser.open(&format!("http://127.0.0.1:{}/", program.port()));
    let banners = "document.getElementById('banners').innerText";

    // Nothing is dropped, and the page says on what this is based.
    browser.until("document.querySelector('.figure').innerText === 'Nothing is being dropped'");
    browser.until("document.querySelector('.rests').innerText.includes('any of the 3 workloads with rules')");
    browser.until(&format!("{banners} === '' && document.querySelector('.hero').dataset.state === 'calm'"));

    links_to_grafana(&browser);
    browser.run("location.hash = '#/drops'");

    fakes.set("iptables-nft-save", "echo 'iptables: out of luck' >&2; exit 1");
    browser.until(&format!("{banners}.includes('counters cannot be read') && {banners}.includes('out of luck')"));
    browser.until("document.querySelector('.figure').innerText === 'Unknown now'");
    browser.run("location.hash = '#/workloads'");
    browser.until("document.querySelectorAll('main tbody tr').length === 3 && document.querySelector('main').classList.contains('stale')");
    fakes.prints("iptables-nft-save", RULES);
    browser.until(&format!("{banners} === ''"));

    etcd.kill();
    browser.until(&format!("{banners}.includes('etcd is unavailable')"));
    assert_eq!(browser.run("return document.querySelectorAll('main tbody tr').length"), 3);
    etcd.start_again();
    browser.until(&format!("{banners} === ''"));
    browser.check_quiet(&format!("http://127.0.0.1:{}/", program.port()));

    drop(program);
    browser.until(&format!("{banners}.includes('The exporter does not answer') && {banners}.includes('The numbers are those of')"));
    assert!(browser.run("return document.querySelector('main').innerText").as_str().unwrap().contains("shop/web-1"), "the numbers stay");
}

/// A pod and a policy link to dashboards that show them for all nodes.
fn links_to_grafana(browser: &Browser) {
    for (place, file, values) in [
        ("workload/cali751425ce827", "workload.json", &[("namespace", "shop"), ("pod", "web-1")][..]),
        ("policy/shop%2Fdefault.web-deny", "policies.json", &[("policy", "shop%2Fdefault.web-deny")]),
    ] {
        browser.run(&format!("location.hash = '#/{place}'"));
        let link = browser.until("document.querySelector('.elsewhere:not([hidden])').href");
        let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana").join(file)).unwrap();
        let dashboard: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let variables: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().map(|variable| &variable["name"]).collect();
        assert!(values.iter().all(|(name, _)| variables.iter().any(|variable| *variable == name)), "{variables:?}");
        let query = values.iter().map(|(name, value)| format!("var-{name}={value}")).collect::<Vec<_>>().join("&");
        let expected = format!("https://grafana.example.org/sub/d/{}?{query}", dashboard["uid"].as_str().unwrap());
        assert_eq!(link, expected.as_str());
    }
}

/// Starts the program with Calico's rules in the kernel, and opens a page on it.
fn on_kernel(test: &str) -> Option<(Browser, Program)> {
    let browser = Browser::start(test)?;
    sight::write("nft", &[sight::WEB_1], true);
    let mut command = program::command();
    command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SOURCE", "kernel");
    let program = Program::start(command);
    Some((browser, program))
}

/// After two seconds, the page must not claim that a whole minute was watched.
#[test]
fn the_first_seconds_claim_no_more_than_was_watched() {
    let test = "the page's first seconds";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| {
        // The program may have watched since its start.
        let begun = Instant::now();
        let Some((browser, program)) = on_kernel(test) else { return };
        browser.open(&format!("http://127.0.0.1:{}/", program.port()));
        browser.until("document.querySelector('.figure').innerText === 'Nothing is being dropped'");
        let mut spans = Vec::new();
        while spans.len() < 2 || spans[spans.len() - 1] < spans[0] + 5 {
            let span = browser.run("return document.querySelector('.rests').innerText.match(/dropped in the last (\\d+) s at/)?.[1] ?? ''");
            let span: u64 = span.as_str().unwrap().parse().unwrap();
            assert!(span <= begun.elapsed().as_secs(), "{span} s are claimed after {:?}", begun.elapsed());
            assert!(begun.elapsed().as_secs() < 60);
            spans.push(span);
        }
        assert!(spans[0] < 60, "{spans:?}");
    });
}

#[test]
fn rules_that_vanish_are_a_state_of_their_own() {
    let test = "the page without rules";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| {
        let Some((browser, program)) = on_kernel(test) else { return };
        browser.open(&format!("http://127.0.0.1:{}/", program.port()));
        let state = |state: &str| browser.until(&format!("document.querySelector('.hero').dataset.state === '{state}'"));
        state("calm");
        sh("nft flush ruleset");
        state("unprotected");
        assert_eq!(browser.text(".figure"), "Calico’s rules have vanished");
        assert!(browser.text("#banners").contains("No policy is enforced on this node."), "{}", browser.text("#banners"));
        let page = browser.run("return document.body.innerText + document.title");
        let page = page.as_str().unwrap();
        assert!(page.contains("(no rules)") && !page.contains("Nothing is being dropped") && !page.contains("was dropped"), "{page}");
        let green = browser.run("return getComputedStyle(document.querySelector('.hero')).borderLeftColor");
        sight::write("nft", &[sight::WEB_1], true);
        state("waiting");
        state("calm");
        assert_ne!(browser.run("return getComputedStyle(document.querySelector('.hero')).borderLeftColor"), green);
        assert_eq!(browser.text("#banners"), "");
    });
}
