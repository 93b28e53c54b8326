//! Hostile names: markup, quotes, line breaks, text direction, ten thousand letters.

use serde_json::{Value, json};

use crate::program::{self, Program};
use crate::support::browser::Browser;
use crate::support::etcd::{Etcd, Scratch};
use crate::support::netns::{Namespace, feed};

const INTERFACE: &str = "cali0000000000a";
const MARKUP: &str = "<img src=x onerror=\"document.title='owned';window.owned=1\">";

/// A workload with nothing but hostile names.
fn endpoint() -> Value {
    let long = format!("{MARKUP}{}", "long ".repeat(2_000));
    json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "node--1-k8s-evil-eth0", "namespace": "<script>window.owned=1</script>\n'\"&amp;\u{202e}\u{0}",
            "labels": {"app": long}},
        "spec": {"orchestrator": "k8s</script><script>window.owned=1</script>", "node": "node-1", "pod": MARKUP, "endpoint": "eth0",
            "interfaceName": INTERFACE, "ipNetworks": ["10.66.0.10/32"], "serviceAccountName": "\"><svg onload=window.owned=1>"}
    })
}

/// A table with one policy with a hostile name, which has a rule that accepts and one that drops.
fn table() -> String {
    let rule = |chain: &str, hash: u32, rest: &str| format!("-A {chain} -m comment --comment \"cali:{hash:016}\" {rest}\n");
    let policy = "cali-pi-_0123456789abcdefghi";
    let to = format!("cali-tw-{INTERFACE}");
    let chains = ["cali-FORWARD", "cali-to-wl-dispatch", &to, policy].map(|chain| format!(":{chain} - [0:0]\n")).concat();
    // iptables-save escapes quotes in comments.
    // A comment names its policy only if the name has neither blanks nor `=`. A tier's name may have any character.
    let name = "-m comment --comment \"Policy default.<script>window.owned()</script><svg/onload>' ingress\"";
    let tier = format!("-m comment --comment \"Start of tier {}\"", MARKUP.replace('"', "\\\""));
    let rules = [
        rule("FORWARD", 1, "-j cali-FORWARD"),
        rule("cali-FORWARD", 2, "-o cali+ -j cali-to-wl-dispatch"),
        rule("cali-to-wl-dispatch", 3, &format!("-o {INTERFACE} -g {to}")),
        rule(&to, 4, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        rule(&to, 5, &format!("{tier} -j MARK --set-xmark 0x0/0x30000")),
        rule(&to, 6, &format!("-m mark --mark 0x0/0x20000 -j {policy}")),
        rule(&to, 7, "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN"),
        rule(&to, 8, "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP"),
        rule(policy, 9, &format!("{name} -p udp --dport 1 -j MARK --set-xmark 0x10000/0x10000")),
        rule(policy, 10, "-p udp --dport 2 -j DROP"),
    ];
    format!("*filter\n{chains}{}COMMIT\n", rules.concat())
}

#[test]
fn hostile_names_are_inert() {
    let test = "hostile names on the page";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| {
        let Some(browser) = Browser::start(test) else { return };
        let Some(etcd) = Etcd::plain() else { return };
        let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/evil/node--1-k8s-evil-eth0";
        etcd.put(&(key.to_owned(), endpoint().to_string()));
        let scratch = Scratch::new();
        let lock = scratch.path().join("lock");
        std::fs::write(&lock, "").unwrap();
        feed(&format!("XTABLES_LOCKFILE={} iptables-nft-restore", lock.display()), &table());
        let mut command = program::command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("ETCD_ENDPOINTS", etcd.url());
        let program = Program::start(command);
        let url = format!("http://127.0.0.1:{}", program.port());
        browser.open(&format!("{url}/#/workloads"));
        browser.until("document.body.innerText.includes('<img src=x onerror=')");
        let policies =
            browser.run_async("const answer = await fetch('api/v1/policies'); return (await answer.json()).policies.map((p) => p.policy)");
        assert!(policies[0].as_str().is_some_and(|policy| policy.contains("<script>window.owned()</script>")), "{policies}");
        let policy = format!("encodeURIComponent({})", policies[0]);
        for (place, marker) in [
            ("'#/workloads'", "<img"),
            (&*format!("'#/workload/{INTERFACE}'"), "Tier <img src=x onerror"),
            ("'#/policies'", "<script>window.owned()</script>"),
            (&*format!("'#/policy/' + {policy}"), "<script>window.owned()</script>"),
            (&*format!("'#/policy/' + encodeURIComponent({})", json!(MARKUP)), "<img"),
            (&*format!("'#/workload/' + encodeURIComponent({})", json!(MARKUP)), "<img"),
            (&*format!("'#/workloads?q=' + encodeURIComponent({})", json!(MARKUP)), "<img"),
            ("'#/drops?by=<img src=x onerror=alert(1)>'", "Nothing is being dropped"),
        ] {
            browser.run(&format!("location.hash = {place}"));
            browser.until(&format!("document.querySelector('main').innerText.includes({})", json!(marker)));
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert_eq!(
                browser.run("return document.querySelectorAll('main img, main script, main svg[onload], main iframe').length"),
                0,
                "{place}"
            );
            assert_eq!(
                browser.run("return [window.owned ?? null, document.title.endsWith('calico-accountant')]"),
                json!([null, true]),
                "{place}"
            );
            let [width, window] =
                ["scrollWidth", "clientWidth"].map(|size| browser.run(&format!("return document.documentElement.{size}")).as_i64());
            assert!(width <= window, "{place}: {width:?} wide in a window of {window:?}");
        }
        // Invisible characters are spelled out, so that a name cannot look like another one.
        browser.run(&format!("location.hash = '#/workload/{INTERFACE}'"));
        browser.until(
            "document.querySelector('h1').innerText.includes('\\\\n') && document.querySelector('h1').innerText.includes('\\\\u{202e}')",
        );
        // The answer for an unknown workload is 404, which the console logs.
        let console: Vec<_> = browser.console().into_iter().filter(|line| !line.contains("404")).collect();
        assert!(console.is_empty(), "{console:#?}");
        assert!(browser.requests().iter().all(|request| request.starts_with(&url)));
    });
}
