//! A node with 250 workloads and 50 policies in its kernel, and packets to all of them: the page changes numbers, not elements.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::picture;
use crate::program::{self, Program};
use crate::support::browser::Browser;
use crate::support::etcd::Scratch;
use crate::support::netns::{Namespace, feed, sh};

const WORKLOADS: usize = 250;
const POLICIES: usize = 50;
/// How many policies share a chain.
const GROUP: usize = 5;
const NAMESPACES: [&str; 8] = ["shop", "billing", "search", "media", "identity", "ledger", "infra", "reports"];
const APPS: [&str; 10] = ["web", "api", "worker", "cache", "db", "queue", "gateway", "cron", "mailer", "proxy"];

fn pod(workload: usize) -> (&'static str, String) {
    let (namespace, app) = (NAMESPACES[workload % NAMESPACES.len()], APPS[workload / NAMESPACES.len() % APPS.len()]);
    (namespace, format!("{app}-{}", workload / (NAMESPACES.len() * APPS.len())))
}

/// The name that Calico gives to a pod's interface.
fn interface(workload: usize) -> String {
    let (namespace, pod) = pod(workload);
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{namespace}.{pod}").as_bytes());
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cali{}", &hex[..11])
}

fn address(workload: usize) -> String {
    format!("10.66.{}.{}", workload / 200, workload % 200 + 1)
}

/// Policy `p` accepts port 1000 + p. Every seventh one denies port 2000 + p.
fn table() -> String {
    let (mut chains, mut rules, mut hash) = (String::from("*filter\n"), String::new(), 0);
    let mut chain = |name: &str, lines: &[String]| {
        chains += &format!(":{name} - [0:0]\n");
        for line in lines {
            hash += 1;
            rules += &format!("-A {name} -m comment --comment \"cali:{hash:016}\" {line}\n");
        }
    };
    let policy_name = |policy: usize| format!("cali-pi-_policy{policy:013}");
    for policy in 0..POLICIES {
        let name = format!("default/{}.{}-{policy:02}", "knp.default", ["allow", "restrict", "from-ingress", "deny-legacy"][policy % 4]);
        let accept =
            format!("-m comment --comment \"Policy {name} ingress\" -p udp --dport {} -j MARK --set-xmark 0x10000/0x10000", 1000 + policy);
        let deny = policy.is_multiple_of(7).then(|| format!("-p udp --dport {} -j DROP", 2000 + policy));
        chain(&policy_name(policy), &[Some(accept), deny].into_iter().flatten().collect::<Vec<_>>());
    }
    let group_name = |group: usize| format!("cali-gi-group{group:015}");
    for group in 0..POLICIES / GROUP {
        let jump = |policy| format!("-m mark --mark 0x0/0x30000 -j {}", policy_name(group * GROUP + policy));
        chain(&group_name(group), &(0..GROUP).map(jump).collect::<Vec<_>>());
    }
    for workload in 0..WORKLOADS {
        let groups = (0..POLICIES / GROUP).flat_map(|group| {
            let accepted = "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN".to_owned();
            [format!("-m mark --mark 0x0/0x20000 -j {}", group_name(group)), accepted]
        });
        let begin = [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-m conntrack --ctstate INVALID -j DROP",
            "-j MARK --set-xmark 0x0/0x30000",
        ];
        let end = "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP";
        let lines: Vec<String> = begin.map(str::to_owned).into_iter().chain(groups).chain([end.to_owned()]).collect();
        chain(&format!("cali-tw-{}", interface(workload)), &lines);
    }
    let dispatch = |workload| format!("-o {0} -g cali-tw-{0}", interface(workload));
    chain("cali-to-wl-dispatch", &(0..WORKLOADS).map(dispatch).collect::<Vec<_>>());
    // The node itself sends the packets, which pass the same rules.
    format!("{chains}-A OUTPUT -o cali+ -m comment --comment \"cali:outputoutputoutp\" -j cali-to-wl-dispatch\n{rules}COMMIT\n")
}

/// Makes interfaces that drop what is sent to them, each with the address of its workload, and the folders of pods' logs for their names.
fn make_node(logs: &Path) {
    sh("ip address add 10.99.0.1/32 dev lo; sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    let mut batch = String::new();
    for workload in 0..WORKLOADS {
        let (device, (namespace, pod)) = (interface(workload), pod(workload));
        batch += &format!("link add {device} type veth peer name end{workload}\n");
        batch += &format!("link set end{workload} up\nlink set {device} up arp off\nroute add {}/32 dev {device}\n", address(workload));
        std::fs::create_dir_all(logs.join(format!("{namespace}_{pod}_0f6c2e0e-7d0c-4f0f-9f5e-{workload:012}"))).unwrap();
    }
    feed("ip -batch -", &batch);
}

/// Sends packets to every workload, to some more than to others. A few get packets that are denied.
fn send(done: &AtomicBool) {
    for round in 0_usize.. {
        for workload in 0..WORKLOADS {
            if done.load(Ordering::Relaxed) {
                return;
            }
            let packets = [1, 0, 3, 0, 6, 1, 0][(workload * 31 + round) % 7];
            for packet in 0..packets {
                let refused = workload % 23 == 4 && packet == 0;
                let port = if refused { [2007, 2021, 9][round % 3] } else { 1000 + (workload + packet * 7) % POLICIES };
                // A new socket, so that it opens a connection.
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                _ = socket.send_to(b"x", (address(workload), u16::try_from(port).unwrap()));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn numbers_change_and_elements_stay_on_a_large_node() {
    let test = "the page on a large node";
    let Some(net) = Namespace::new(test) else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    net.run(|| {
        make_node(&scratch.path().join("pods"));
        feed(&format!("XTABLES_LOCKFILE={} iptables-nft-restore", lock.display()), &table());
        // Not earlier: a browser cancels its requests when interfaces come up.
        let Some(browser) = Browser::start(test) else { return };
        let mut command = program::command();
        command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", scratch.path().join("pods"));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock);
        let program = Program::start(command);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| net.run(|| send(&done)));
            let look = || look(&browser, &format!("http://127.0.0.1:{}", program.port()));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
            done.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}

fn look(browser: &Browser, url: &str) {
    browser.open(&format!("{url}/#/workloads?sort=workload"));
    browser.until(&format!("document.querySelectorAll('main tbody tr').length === {WORKLOADS}"));
    browser.until("document.querySelectorAll('main tbody tr.dropping').length > 5");
    browser.until("document.querySelector('main tbody .c-workload').innerText.includes('/')");
    let answers = "performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/workloads')).length";
    // Processor time does not depend on how busy the machine is.
    browser.devtools("Performance.enable", json!({"timeDomain": "threadTicks"}));
    browser.run("performance.clearResourceTimings()");
    let before = durations(browser);
    browser.until(&format!("{answers} >= 3"));
    let (after, count) = (durations(browser), browser.run(&format!("return {answers}")).as_f64().unwrap());
    let each = |i: usize| (after[i] - before[i]) * 1000.0 / count;
    println!("{WORKLOADS} workloads: for each answer {:.1} ms of script, {:.1} of layout, {:.1} of style", each(0), each(1), each(2));

    // From now on, no element may be added or removed. Frames are counted during scrolling.
    browser.run(
        "window.seen = { added: 0, changed: 0, frames: [], long: [] };
         new MutationObserver((records) => records.forEach((record) => {
           if (record.type === 'characterData') seen.changed += 1;
           else seen.added += [...record.addedNodes].filter((node) => node.nodeName === 'TR' && !seen.rows.has(node)).length;
         })).observe(document.querySelector('main'), { childList: true, characterData: true, subtree: true });
         seen.rows = new Set(document.querySelectorAll('main tbody tr'));
         new PerformanceObserver((list) => list.getEntries().forEach((entry) => seen.long.push(entry.duration))).observe({ type: 'longtask' });
         performance.clearResourceTimings();
         let before = performance.now(), down = 1;
         requestAnimationFrame(function frame(now) {
           seen.frames.push(now - before); before = now;
           if (scrollY + innerHeight >= document.documentElement.scrollHeight - 1) down = -1;
           if (scrollY === 0) down = 1;
           scrollBy(0, 24 * down);
           requestAnimationFrame(frame);
         });",
    );
    browser.until(&format!("{answers} >= 2"));
    let seen = browser.run(
        "const top = (list) => list.sort((a, b) => b - a).slice(0, 5).map(Math.round).join(', ');
         return [seen.added, seen.changed, `${seen.frames.length} frames, the longest ${top(seen.frames)} ms; long tasks ${top(seen.long)} ms`];",
    );
    println!("while scrolling: {}", seen[2]);
    assert_eq!(seen[0], 0, "no row is made anew");
    assert!(seen[1].as_u64().unwrap() > 100, "{} numbers have changed", seen[1]);

    everything_is_there(browser);

    browser.run("location.hash = '#/policies'");
    browser.until(&format!("document.querySelectorAll('main tbody tr').length === {POLICIES}"));
    browser.run(&format!("location.hash = '#/workload/{}'", interface(4)));
    browser.until(&format!("document.querySelectorAll('.direction tr.member').length === {POLICIES}"));
    browser.check_quiet(url);
    pictures(browser, url);
}

/// The browser's own search finds rows below the screen. Print has all rows and their lines, on white. The table fills a wide screen.
fn everything_is_there(browser: &Browser) {
    let last = "[...document.querySelectorAll('main tbody th a')].at(-1)";
    browser.run("scrollTo(0, 0); getSelection().removeAllRanges()");
    assert_eq!(browser.run(&format!("return window.find({last}.innerText) && {last}.contains(getSelection().anchorNode)")), true);
    browser.run("getSelection().selectAllChildren(document.querySelector('main'))");
    let selected = browser.run("return getSelection().toString()").as_str().unwrap().to_owned();
    assert!((0..WORKLOADS).map(pod).all(|(namespace, pod)| selected.contains(&format!("{namespace}/{pod}"))), "all rows are selected");

    let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
    browser.devtools("Emulation.setEmulatedMedia", json!({"media": "print", "features": features}));
    browser.run("dispatchEvent(new Event('beforeprint'))");
    let printed = browser.run(
        "const lines = [...document.querySelectorAll('main tbody .spark .up')].filter((line) => line.hasAttribute('d'));
         const shown = (selector) => [...document.querySelectorAll(selector)].some((element) => element.checkVisibility());
         return [getComputedStyle(document.body).backgroundColor, lines.length, shown('main tbody tr:last-child'), shown('nav, .tools, .toolbar input, .export')]",
    );
    assert_eq!(printed, json!(["rgb(255, 255, 255)", WORKLOADS, true, false]));
    browser.devtools("Emulation.setEmulatedMedia", json!({"media": "", "features": []}));

    browser.resize(2200, 900, false);
    let width = browser.run("return document.querySelector('main table').offsetWidth").as_u64().unwrap();
    assert!(width > 1900, "a table of {width} px on a screen of 2200 px");
    browser.resize(1280, 900, false);
}

/// The time that the page has used in its thread so far, in seconds: script, layout, style.
fn durations(browser: &Browser) -> [f64; 3] {
    let metrics = browser.devtools("Performance.getMetrics", json!({}));
    let metrics = metrics["metrics"].as_array().unwrap();
    ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration"]
        .map(|name| metrics.iter().find(|metric| metric["name"] == name).unwrap()["value"].as_f64().unwrap())
}

fn pictures(browser: &Browser, url: &str) {
    if std::env::var_os("UPDATE_SCREENSHOTS").is_none() {
        return;
    }
    browser.prefer_dark(false);
    browser.resize(1280, 900, false);
    browser.open(&format!("{url}/?pictures#/workloads?sort=-ingress-dropped"));
    std::thread::sleep(Duration::from_secs(75));
    picture(browser, "workloads-250");
    browser.run("location.hash = '#/policies?sort=-deny'");
    std::thread::sleep(Duration::from_secs(12));
    picture(browser, "policies-250");
    browser.run(&format!("location.hash = '#/workload/{}'", interface(4)));
    std::thread::sleep(Duration::from_secs(12));
    picture(browser, "pipeline-250");
}
