//! `watch`: real packets through real rules, each shown as it was decided. Nothing of `watch` remains in the kernel.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::live::{self, Net, POLICIES, PORTS, WORKLOADS};
use crate::program::{self, PATIENCE};
use crate::support::netns::{feed, sh};
use crate::support::within;

/// The same as [`live::table`], as Calico 3.32 writes it into its own tables.
pub fn native() -> String {
    let (mut rules, mut hash) = (String::new(), 0);
    let mut rule = |text: &str, comment: &str| {
        hash += 1;
        format!("{text} comment \"cali:{hash:016}; {comment}\"\n")
    };
    for (policy, accepted, refused) in POLICIES {
        rules += &format!("chain filter-cali-pi-gnp/{policy} {{\n");
        let mut name = format!("GlobalNetworkPolicy {policy} ingress");
        for (ports, bit, then) in [(accepted, "0x00010000", "return"), (refused, "0x00040000", "drop")] {
            for port in ports {
                let set = format!("udp dport {port} counter meta mark set meta mark | {bit}");
                rules += &rule(&set, &std::mem::take(&mut name));
                rules += &rule(&format!("meta mark & {bit} == {bit} counter {then}"), "");
            }
        }
        rules += "}\n";
    }
    rules += "chain filter-cali-gi-aOv2SDXDzD9uuqqikYHj {\n";
    for (policy, ..) in POLICIES {
        rules += &rule(&format!("meta mark & 0x00030000 == 0 counter jump filter-cali-pi-gnp/{policy}"), "");
    }
    rules += "}\n";
    for (interface, _) in WORKLOADS {
        rules += &format!("chain filter-cali-tw-{interface} {{\n");
        rules += &rule("ct state established,related counter accept", "");
        rules += &rule("ct state invalid counter drop", "");
        rules += &rule("counter meta mark set meta mark & 0xfffcffff", "Start of tier default");
        rules += &rule("meta mark & 0x00020000 == 0 counter jump filter-cali-gi-aOv2SDXDzD9uuqqikYHj", "");
        rules += &rule("meta mark & 0x00010000 == 0x00010000 counter return", "Return if policy accepted");
        rules += &rule("meta mark & 0x00020000 == 0 counter drop", "End of tier default. Drop if no policies passed packet");
        rules += "}\n";
    }
    rules += "chain filter-FORWARD {\ntype filter hook forward priority filter;\n";
    for (interface, _) in WORKLOADS {
        rules += &rule(&format!("oifname {interface} counter jump filter-cali-tw-{interface}"), "");
    }
    format!("table ip calico {{\n{rules}}}\n}}\n")
}

/// A running `watch`, and a thread that reads its output, because a full pipe would stop it.
struct Watch(Child, Option<JoinHandle<String>>);

impl Watch {
    /// Starts it in the calling thread's namespace. Waits until packets are marked.
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let read = move || {
            let mut lines = String::new();
            stdout.read_to_string(&mut lines).unwrap();
            lines
        };
        let mut watch = Watch(child, Some(std::thread::spawn(read)));
        let mut heading = String::new();
        BufReader::new(watch.0.stderr.as_mut().unwrap()).read_line(&mut heading).unwrap();
        assert!(heading.starts_with("Watching packets of "), "{heading}");
        watch
    }

    /// The lines of a `watch` that has ended.
    fn lines(&mut self) -> Vec<Value> {
        let lines = self.1.take().unwrap().join().unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Ends it as Ctrl-C does. Returns its lines, and the summary that it printed at the end.
    fn end(mut self) -> (Vec<Value>, String) {
        self.signal(Signal::INT);
        let mut summary = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut summary).unwrap();
        assert!(self.0.wait().unwrap().success());
        (self.lines(), summary)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = program::command();
    command.arg("watch").args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DATASTORE_TYPE", "none");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The error of a `watch` that cannot start.
fn refused(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn is_gone() -> bool {
    !sh("nft list tables").contains("calico-accountant")
}

/// Sends packets to each port of each workload, each from its own socket.
pub fn send(times: usize) {
    for _ in 0..times {
        for (_, address) in WORKLOADS {
            for port in PORTS {
                let socket = UdpSocket::bind("10.66.1.2:0").unwrap();
                socket.send_to(b"x", (address, port)).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// How many lines there are, by interface, port, verdict, reason and policy.
pub fn counted(lines: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((text("source"), text("protocol"), text("direction")), ("10.66.1.2".into(), "udp".into(), "ingress".into()));
        let key = format!("{} {} {} {} {}", text("interface"), line["destination_port"], text("verdict"), text("reason"), text("policy"));
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// What [`counted`] must return after [`send`].
pub fn expected(times: usize, interfaces: &[&str]) -> BTreeMap<String, usize> {
    let decision = |port: u16| {
        let find = |decides: &dyn Fn(&[u16], &[u16]) -> bool| POLICIES.iter().find(|(_, accepted, refused)| decides(accepted, refused));
        match (find(&|accepted, _| accepted.contains(&port)), find(&|_, refused| refused.contains(&port))) {
            (Some((policy, ..)), _) => format!("accept policy {policy}"),
            (_, Some((policy, ..))) => format!("drop policy {policy}"),
            (None, None) => "drop no_policy ".to_owned(),
        }
    };
    let cells = interfaces.iter().flat_map(|interface| PORTS.map(|port| (format!("{interface} {port} {}", decision(port)), times)));
    cells.collect()
}

/// `restore` loads the rules into the kernel. It is called twice.
fn every_packet_is_told(test: &str, restore: fn()) {
    let Some(net) = Net::new(test) else { return };
    let all = WORKLOADS.map(|(interface, _)| interface);
    net.node.run(|| {
        restore();
        let watch = Watch::start(&["--json", "--rate", "10000"]);
        net.client.run(|| send(10));
        // The same rules with other handles.
        restore();
        std::thread::sleep(Duration::from_millis(200));
        net.client.run(|| send(10));
        std::thread::sleep(Duration::from_secs(2));
        let (lines, summary) = watch.end();
        assert_eq!(counted(&lines), expected(20, &all), "{summary}");
        assert!(summary.contains("280 packets were traced; 280 shown"), "{summary}");
        assert!(is_gone());

        let watch = Watch::start(&["--json", "--rate", "10000", "--dropped", all[0]]);
        net.client.run(|| send(2));
        std::thread::sleep(Duration::from_millis(300));
        let mut only = expected(2, &all[..1]);
        only.retain(|cell, _| cell.contains(" drop "));
        assert_eq!(counted(&watch.end().0), only);

        let mut watch = Watch::start(&["--json", "--rate", "10000", "--policy", "default.p2", "--for", "2s"]);
        net.client.run(|| send(2));
        let mut of_policy = expected(2, &all);
        of_policy.retain(|cell, _| cell.ends_with(" default.p2"));
        within(PATIENCE, "it ends by itself", is_gone);
        assert_eq!(counted(&watch.lines()), of_policy);
    });
}

pub fn restore_iptables() {
    feed("XTABLES_LOCKFILE=/dev/null iptables-nft-restore", &live::table());
}

pub fn restore_native() {
    feed("nft -f -", &format!("table ip calico {{}}\ndelete table ip calico\n{}", native()));
}

#[test]
fn every_packet_is_told_with_iptables_nft() {
    every_packet_is_told("watching packets of iptables-nft", restore_iptables);
}

#[test]
fn every_packet_is_told_with_calicos_own_tables() {
    every_packet_is_told("watching packets of nftables", restore_native);
}

/// Rules appear, or Felix removes them for a while, and no packet causes a check of the rules.
#[test]
fn rules_that_come_later_are_watched_too() {
    let all = WORKLOADS.map(|(interface, _)| interface);
    let only_first: fn() = || {
        let rules: String = live::table().lines().filter(|line| !line.contains(WORKLOADS[1].0)).map(|line| format!("{line}\n")).collect();
        feed("XTABLES_LOCKFILE=/dev/null iptables-nft-restore", &rules);
    };
    let no_more: fn() = || {
        sh("iptables-nft -F; iptables-nft -X");
        std::thread::sleep(Duration::from_secs(2));
    };
    for (before, meanwhile) in [(only_first, (|| {}) as fn()), (restore_iptables, no_more)] {
        let Some(net) = Net::new("rules that come later") else { return };
        net.node.run(|| {
            before();
            let watch = Watch::start(&["--json", "--rate", "10000"]);
            meanwhile();
            restore_iptables();
            std::thread::sleep(Duration::from_secs(3));
            net.client.run(|| send(3));
            std::thread::sleep(Duration::from_secs(2));
            let (lines, summary) = watch.end();
            assert_eq!(counted(&lines), expected(3, &all), "{summary}");
        });
    }
}

#[test]
fn the_rate_is_kept_and_said() {
    let Some(net) = Net::new("a rate of traces") else { return };
    net.node.run(|| {
        restore_iptables();
        let watch = Watch::start(&["--json", "--rate", "5"]);
        let begun = Instant::now();
        net.client.run(|| send(20));
        let seconds = begun.elapsed().as_secs() as usize + 1;
        std::thread::sleep(Duration::from_millis(300));
        let (lines, summary) = watch.end();
        // The first five immediately, then as many as the rate allows.
        assert!((5..=5 + 5 * seconds).contains(&lines.len()), "{} in {seconds} s", lines.len());
        assert!(summary.contains(&format!("{} of 280 packets were traced (at most 5 a second)", lines.len())), "{summary}");
    });
}

#[test]
fn nothing_is_left_and_one_watches_at_a_time() {
    let Some(net) = Net::new("the table of watch") else { return };
    net.node.run(|| {
        restore_iptables();
        let watch = Watch::start(&[]);
        assert!(!is_gone());
        // Other processes can neither flush nor delete a table with an owner.
        sh("nft flush ruleset");
        sh("! nft delete table inet calico-accountant 2>/dev/null");
        restore_iptables();
        assert!(!is_gone());
        let second = refused(&[]);
        assert!(second.contains("another process traces packets on this node"), "{second}");
        watch.signal(Signal::KILL);
        within(PATIENCE, "the table goes with the process", is_gone);

        // As left by a process on a kernel on which tables have no owner.
        sh("nft add table inet calico-accountant");
        let watch = Watch::start(&["--for", "100ms"]);
        within(PATIENCE, "the table goes with the process", is_gone);
        drop(watch);
    });
}

#[test]
fn what_cannot_be_watched_is_one_line() {
    let Some(net) = Net::new("what cannot be watched") else { return };
    net.node.run(|| {
        restore_iptables();
        let nobody = refused(&["shop/web-1"]);
        assert!(nobody.contains("no endpoint \"shop/web-1\" has rules here"), "{nobody}");
        sh("iptables-nft -F; iptables-nft -X");
        feed("XTABLES_LOCKFILE=/dev/null iptables-legacy-restore", &live::table());
        let legacy = refused(&[]);
        assert!(legacy.contains("Felix writes legacy tables here") && legacy.lines().count() == 1, "{legacy}");
    });
}

/// Rules as Felix writes them: the first workload's egress, with its own policy.
fn egress() -> String {
    let [(a, _), _] = WORKLOADS;
    let mut rules = String::from("*filter\n:cali-from-wl-dispatch - [0:0]\n:cali-po-default.out - [0:0]\n");
    rules += &format!(":cali-fw-{a} - [0:0]\n-I FORWARD -i cali+ -m comment --comment cali:8000000000000000 -j cali-from-wl-dispatch\n");
    let fw = format!("cali-fw-{a}");
    for (place, (chain, rule)) in [
        ("cali-from-wl-dispatch", format!("-i {a} -g {fw}")),
        (&*fw, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into()),
        (&fw, "-m conntrack --ctstate INVALID -j DROP".into()),
        (&fw, "-j MARK --set-xmark 0x0/0x30000".into()),
        (&fw, "-m mark --mark 0x0/0x20000 -j cali-po-default.out".into()),
        (&fw, "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN".into()),
        (&fw, "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP".into()),
        ("cali-po-default.out", "-m comment --comment \"Policy default.out egress\" -p udp --dport 1012 -j DROP".into()),
        ("cali-po-default.out", "-p udp -m multiport --dports 1002,1004,1014 -j MARK --set-xmark 0x10000/0x10000".into()),
    ]
    .into_iter()
    .enumerate()
    {
        rules += &format!("-A {chain} -m comment --comment cali:900000000000000{place} {rule}\n");
    }
    rules + "COMMIT\n"
}

/// Ten thousand packets through services, as kube-proxy makes them, from pod to pod, through both pods' policies. Each is shown completely.
#[test]
fn services_and_pods_of_one_node() {
    let Some(net) = Net::new("packets from pod to pod") else { return };
    let [(a, _), (b, address_b)] = WORKLOADS;
    net.node.run(|| {
        restore_iptables();
        feed("XTABLES_LOCKFILE=/dev/null iptables-nft-restore --noflush", &egress());
        sh("iptables-nft -t nat -A PREROUTING -d 10.96.0.1 -p udp --dport 53 -j DNAT --to-destination 10.66.0.10:1002");
        sh("iptables-nft -t nat -A PREROUTING -d 10.96.0.2 -p udp --dport 53 -j DNAT --to-destination 10.66.0.11:1004");
    });
    // Name, state, address.
    let link = net.node.run(|| sh(&format!("ip -br link show dev {a}")));
    let gateway = link.split_whitespace().nth(2).unwrap();
    net.workloads[0].run(|| {
        sh(&format!("ip route add {address_b} dev eth0 && ip route add 10.96.0.0/24 dev eth0"));
        for to in [address_b, "10.96.0.2"] {
            sh(&format!("ip neighbour replace {to} dev eth0 lladdr {gateway}"));
        }
    });
    net.node.run(|| {
        let watch = Watch::start(&["--json", "--rate", "10000"]);
        let send = |to: &str| {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to).unwrap();
            std::thread::sleep(Duration::from_micros(700));
        };
        const TIMES: usize = 2000;
        net.client.run(|| (0..TIMES).for_each(|_| send("10.96.0.1:53")));
        for to in ["10.96.0.2:53", "10.66.0.11:1012", "10.66.0.11:1014", "10.66.0.11:1099"] {
            net.workloads[0].run(|| (0..TIMES).for_each(|_| send(to)));
        }
        std::thread::sleep(Duration::from_secs(1));
        let (lines, summary) = watch.end();
        let mut counts = BTreeMap::new();
        for line in &lines {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            let way = format!(
                "{} {} {} {}:{}",
                text("interface"),
                text("direction"),
                text("source"),
                text("destination"),
                line["destination_port"]
            );
            *counts.entry(format!("{way} {} {} {} {}", text("verdict"), text("reason"), text("policy"), line["rule"])).or_default() += 1;
        }
        let from_client = format!("{a} ingress 10.66.1.2 10.66.0.10:1002 accept policy default.p2 0");
        let of_a = |port: u16, told: &str| format!("{a} egress 10.66.0.10 {address_b}:{port} {told}");
        let of_b = |port: u16, told: &str| format!("{b} ingress 10.66.0.10 {address_b}:{port} {told}");
        let expected: BTreeMap<String, usize> = [
            from_client,
            of_a(1004, "accept policy default.out 1"),
            of_b(1004, "accept policy default.p4 0"),
            of_a(1012, "drop policy default.out 0"),
            of_a(1014, "accept policy default.out 1"),
            of_b(1014, "drop policy default.p4 1"),
            of_a(1099, "drop no_policy  null"),
        ]
        .into_iter()
        .map(|told| (told, TIMES))
        .collect();
        assert_eq!(counts, expected, "{summary}");
    });
}
