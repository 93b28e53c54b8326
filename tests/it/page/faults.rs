//! What the page says when something is away: the kernel's counters, the datastore, the exporter itself.

use crate::program::{self, Program};
use crate::support::browser::Browser;
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::netns::Namespace;

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
    let program = Program::start(command);
    browser.open(&format!("http://127.0.0.1:{}/", program.port()));
    let banners = "document.getElementById('banners').innerText";

    // Nothing is dropped, and it is said what that rests on.
    browser.until("document.querySelector('.figure').innerText === 'Nothing is being dropped'");
    browser.until("document.querySelector('.rests').innerText.includes('any of the 3 workloads with rules')");
    browser.until(&format!("{banners} === '' && document.querySelector('.hero').dataset.state === 'calm'"));

    fakes.set("iptables-nft-save", "echo 'iptables: out of luck' >&2; exit 1");
    browser.until(&format!("{banners}.includes('counters cannot be read') && {banners}.includes('out of luck')"));
    browser.until("document.querySelector('.figure').innerText === 'Cannot be told now'");
    browser.run("location.hash = '#/workloads'");
    browser.until("document.querySelectorAll('main tbody tr').length === 3 && document.querySelector('main').classList.contains('stale')");
    fakes.prints("iptables-nft-save", RULES);
    browser.until(&format!("{banners} === ''"));

    etcd.kill();
    browser.until(&format!("{banners}.includes('etcd is away')"));
    assert_eq!(browser.run("return document.querySelectorAll('main tbody tr').length"), 3);
    etcd.start_again();
    browser.until(&format!("{banners} === ''"));
    browser.check_quiet(&format!("http://127.0.0.1:{}/", program.port()));

    drop(program);
    browser.until(&format!("{banners}.includes('The exporter does not answer') && {banners}.includes('The numbers are those of')"));
    assert!(browser.run("return document.querySelector('main').innerText").as_str().unwrap().contains("shop/web-1"), "the numbers stay");
}
