//! Live traffic through a policy group that two workloads share, scraped at random moments: every packet that is credited to a policy was
//! sent to it.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::{Samples, one, scrape, with};

/// Interface and address of each workload.
pub const WORKLOADS: [(&str, &str); 2] = [("cali0000000000a", "10.66.0.10"), ("cali0000000000b", "10.66.0.11")];

/// The group's policies in order: name, ports that it accepts, ports that it denies.
pub const POLICIES: [(&str, &[u16], &[u16]); 4] =
    [("default.p1", &[1001], &[]), ("default.p2", &[1002], &[1012]), ("default.p3", &[], &[1013]), ("default.p4", &[1004], &[1014])];

/// All these ports, and one that no policy knows.
pub const PORTS: [u16; 7] = [1001, 1002, 1012, 1013, 1004, 1014, 1099];

/// For how long packets are sent.
const WHILE: Duration = Duration::from_secs(20);

/// A table as Calico 3.28 writes it.
pub fn table() -> String {
    let mut rules = Rules::default();
    rules.add("FORWARD", "-o cali+", "-j cali-to-wl-dispatch");
    for (interface, _) in WORKLOADS {
        rules.add("cali-to-wl-dispatch", &format!("-o {interface}"), &format!("-g cali-tw-{interface}"));
    }
    rules.add("cali-to-wl-dispatch", "-m comment --comment \"Unknown interface\"", "-j DROP");
    for (interface, _) in WORKLOADS {
        let chain = format!("cali-tw-{interface}");
        rules.add(&chain, "-m conntrack --ctstate RELATED,ESTABLISHED", "-j ACCEPT");
        rules.add(&chain, "-m conntrack --ctstate INVALID", "-j DROP");
        rules.add(&chain, "", "-j MARK --set-xmark 0x0/0x30000");
        rules.add(&chain, "-m mark --mark 0x0/0x20000", "-j cali-gi-aOv2SDXDzD9uuqqikYHj");
        rules.add(&chain, "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000", "-j RETURN");
        rules.add(&chain, "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000", "-j DROP");
    }
    for (index, (policy, accepted, refused)) in POLICIES.iter().enumerate() {
        let first = if index == 0 { "" } else { "-m mark --mark 0x0/0x30000" };
        rules.add("cali-gi-aOv2SDXDzD9uuqqikYHj", first, &format!("-j cali-pi-{policy}"));
        let mut name = format!("-m comment --comment \"Policy {policy} ingress\"");
        for (ports, target) in [(accepted, "-j MARK --set-xmark 0x10000/0x10000"), (refused, "-j DROP")] {
            for port in *ports {
                rules.add(&format!("cali-pi-{policy}"), &format!("{} -p udp --dport {port}", std::mem::take(&mut name)), target);
            }
        }
    }
    rules.text()
}

/// Rules, each with its own hash.
#[derive(Default)]
struct Rules {
    chains: Vec<String>,
    rules: String,
    count: u32,
}

impl Rules {
    fn add(&mut self, chain: &str, matches: &str, target: &str) {
        if chain.starts_with("cali-") && !self.chains.iter().any(|known| known == chain) {
            self.chains.push(chain.to_owned());
        }
        self.count += 1;
        let hash = self.count;
        self.rules += &format!("-A {chain} -m comment --comment \"cali:{hash:016}\" {matches} {target}\n");
    }

    fn text(self) -> String {
        let chains: String = self.chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        format!("*filter\n{chains}{}COMMIT\n", self.rules)
    }
}

/// The node with a client and two workloads, each in its own network namespace.
pub struct Net {
    pub node: Namespace,
    pub client: Namespace,
    pub workloads: Vec<Namespace>,
}

impl Net {
    pub fn new(test: &str) -> Option<Self> {
        let (node, client) = (Namespace::new(test)?, Namespace::new(test)?);
        node.run(|| {
            sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
            sh(&format!("ip link add eth9 type veth peer name eth0 netns {}", client.name()));
            sh("ip address add 10.66.1.1/24 dev eth9 && ip link set eth9 up");
        });
        client.run(|| sh("ip address add 10.66.1.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.66.1.1"));
        let workload = |(interface, address): &(&str, &str)| {
            let workload = Namespace::new(test).unwrap();
            let make = format!("ip link add {interface} type veth peer name eth0 netns {}", workload.name());
            node.run(|| sh(&format!("{make} && ip link set {interface} up && ip route add {address}/32 dev {interface}")));
            let up = format!("ip address add {address}/32 dev eth0 && ip link set eth0 up");
            workload.run(|| sh(&format!("{up} && ip route add 10.66.1.0/24 dev eth0 scope link")));
            node.run(|| {
                sh(&format!("ip link set {interface} arp off; ip neighbour replace {address} dev {interface} lladdr {}", mac(&workload)))
            });
            workload.run(|| sh("ip link set eth0 arp off"));
            workload
        };
        let workloads = WORKLOADS.iter().map(workload).collect();
        Some(Net { node, client, workloads })
    }
}

/// The address of a workload's end of its veth pair.
pub fn mac(workload: &Namespace) -> String {
    // Not from /sys, which belongs to the namespace in which it was mounted.
    workload.run(|| sh("ip -brief link show eth0 | awk '{ print $3 }'")).trim().to_owned()
}

/// Packets sent, by workload and port. Each is counted before it is sent.
type Sent = [[AtomicU64; PORTS.len()]; WORKLOADS.len()];

/// Sends bursts of packets, each from its own socket. For some time they go to one of the workloads or to both.
fn send(sent: &Sent, done: &AtomicBool) {
    let mut random = Random(0x5eed);
    let (mut only, mut until) = (None, Instant::now());
    while !done.load(Ordering::Relaxed) {
        if Instant::now() >= until {
            only = [None, Some(0), Some(1)][random.below(3)];
            until = Instant::now() + Duration::from_millis(500 + random.below(1500) as u64);
        }
        for _ in 0..random.below(60) {
            let (workload, port) = (only.unwrap_or_else(|| random.below(2)), random.below(PORTS.len()));
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            sent[workload][port].fetch_add(1, Ordering::SeqCst);
            // The error may be the answer to an earlier packet. Then this one was not sent.
            while socket.send_to(b"x", (WORKLOADS[workload].1, PORTS[port])).is_err() {}
        }
        std::thread::sleep(Duration::from_millis(random.below(40) as u64));
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// How many packets were sent to these ports.
fn sum(sent: &Sent, workload: usize, ports: &[u16]) -> u64 {
    ports.iter().map(|port| sent[workload][PORTS.iter().position(|p| p == port).unwrap()].load(Ordering::SeqCst)).sum()
}

fn counted(samples: &Samples, interface: &str, policy: &str, verdict: &str) -> u64 {
    let labels = [("interface", interface), ("policy", policy), ("verdict", verdict), ("direction", "ingress")];
    with(samples, "calico_accountant_policy_packets_total", &labels).map(|(_, packets)| packets as u64).sum()
}

/// Asserts that no policy has more packets than were sent to it. Returns how many the policies have, and how many the group has.
fn check(samples: &Samples, sent: &Sent) -> (u64, u64) {
    let (mut single, mut joined) = (0, 0);
    for (workload, (interface, _)) in WORKLOADS.iter().enumerate() {
        for (policy, accepted, refused) in POLICIES {
            for (verdict, ports) in [("accept", accepted), ("deny", refused)] {
                let credited = counted(samples, interface, policy, verdict);
                assert!(credited <= sum(sent, workload, ports), "{interface} {policy} {verdict}: {credited} credited");
                single += credited;
            }
        }
        let labels = [("interface", *interface), ("direction", "ingress")];
        let of_several = with(samples, "calico_accountant_policy_packets_total", &labels).filter(|(series, _)| {
            let policies = series.split_once("policy=\"").and_then(|(_, rest)| rest.split('"').next());
            policies.is_some_and(|policies| policies.contains(','))
        });
        joined += of_several.map(|(_, packets)| packets as u64).sum::<u64>();
    }
    (single, joined)
}

/// Runs the test. `load` loads the rules into the kernel under a lock file. Returns the share that is credited to single policies, in
/// percent.
pub fn live(test: &str, load: impl Fn(&str) + Sync, variables: &[(&str, &str)]) -> Option<f64> {
    let net = Net::new(test)?;
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    let sent = Sent::default();
    let done = AtomicBool::new(false);
    net.node.run(|| {
        load(&lock.display().to_string());
        let mut command = program::command();
        command.envs(variables.iter().copied());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock);
        let program = Program::start(command);
        check(&scrape(program.port()), &sent);
        let (begun, mut random, mut scrapes) = (Instant::now(), Random(7), 0);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| net.client.run(|| send(&sent, &done)));
            while begun.elapsed() < WHILE {
                let samples = scrape(program.port());
                assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0);
                check(&samples, &sent);
                scrapes += 1;
                std::thread::sleep(Duration::from_millis(random.below(300) as u64));
            }
            done.store(true, Ordering::Relaxed);
            sender.join().unwrap();
        });
        // Without traffic, nothing may be missing. It takes two reads: what was in flight during one comes with the next.
        std::thread::sleep(Duration::from_millis(200));
        scrape(program.port());
        scrape(program.port());
        let samples = scrape(program.port());
        let (single, joined) = check(&samples, &sent);
        let total: u64 = (0..2).map(|w| sum(&sent, w, &PORTS[..6])).sum();
        assert_eq!(single + joined, total, "{single} + {joined}");
        for (workload, (interface, _)) in WORKLOADS.iter().enumerate() {
            let labels = [("interface", *interface), ("reason", "no_policy")];
            assert_eq!(one(&samples, "calico_accountant_drop_packets_total", &labels) as u64, sum(&sent, workload, &[1099]));
        }
        let share = single as f64 * 100.0 / total as f64;
        println!("{test}: {total} packets, {scrapes} scrapes: {share:.1} % credited to single policies");
        Some(share)
    })
}

fn with_iptables(backend: &str) {
    let load = |lock: &str| feed(&format!("XTABLES_LOCKFILE={lock} iptables-{backend}-restore"), &table());
    if let Some(share) = live(&format!("live traffic, {backend}"), load, &[]) {
        assert!(share > 20.0, "{share}");
    }
}

#[test]
fn every_credited_packet_is_right_with_iptables_legacy() {
    with_iptables("legacy");
}

#[test]
fn every_credited_packet_is_right_with_iptables_nft() {
    with_iptables("nft");
}
