//! "From where": real packets that the kernel traced, as the page shows them, and the draft of a policy that would accept them.

use super::axe;
use crate::live::{Net, WORKLOADS};
use crate::program::{self, Program};
use crate::support::browser::Browser;
use crate::support::scrape::scrape;
use crate::watch::{restore_iptables, send};

#[test]
fn packets_are_told_by_peer_and_port() {
    let test = "the page's witnesses";
    let Some(net) = Net::new(test) else { return };
    net.node.run(|| {
        let Some(browser) = Browser::start(test) else { return };
        restore_iptables();
        let mut command = program::command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DATASTORE_TYPE", "none").env("XTABLES_LOCKFILE", "/dev/null");
        // An existing folder for pods' logs: without one, a banner would push the page down.
        command.env("WITNESSES", "groups").env("POD_LOGS_DIR", "/tmp");
        let program = Program::start(command);
        scrape(program.port());
        net.client.run(|| send(3));
        let origin = format!("http://127.0.0.1:{}/", program.port());
        browser.open(&format!("{origin}#/drops"));
        let rows = "[...document.querySelectorAll('.witnesses tbody tr')].map((row) => row.innerText)";
        let wait_for = |what: &str| {
            browser.until(&format!("{rows}.some((text) => {what})"));
        };
        wait_for("text.includes('from 10.66.1.2') && text.includes('udp/1099') && text.includes('no policy matched')");
        browser.until(&format!("!{rows}.some((text) => text.includes('udp/1001'))"));
        browser.run(&format!("location.hash = '#/workload/{}'", WORKLOADS[0].0));
        wait_for("text.includes('udp/1012') && text.includes('dropped') && text.includes('p2, rule 1')");
        wait_for("text.includes('udp/1001') && text.includes('accepted') && text.includes('3 (')");
        browser.run("location.hash = '#/policy/default.p2'");
        wait_for("text.includes('udp/1002') && text.includes('accepted')");
        for (width, height, is_phone) in [(390, 844, true), (1400, 900, false)] {
            browser.resize(width, height, is_phone);
            for dark in [false, true] {
                browser.prefer_dark(dark);
                let url = format!("{origin}?{width}{dark}#/policy/default.p2");
                let found = axe::script().map(|script| axe::look(&browser, &url, &script)).unwrap_or_default();
                assert!(found.is_empty(), "{width} px, dark {dark}: {found:#?}");
                super::picture(&browser, &format!("witnesses-{width}-{}", if dark { "dark" } else { "light" }));
            }
        }
        browser.check_quiet(&origin);
    });
}
