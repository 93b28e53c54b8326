//! Three etcd members, and the faults that clusters have. After each fault, the inventory equals the datastore, and memory, threads and
//! descriptors are as before. During the fault, the follower must use little CPU and send few requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use calico_accountant::config::EtcdConfig;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::etcd::{LIMITS, Limits, follow};
use serde_json::{Value, json};

use super::{NODE, ROOT, SOON, config, endpoint};
use crate::support::certificates::Certificates;
use crate::support::etcd::{Etcd, Options, Scratch};
use crate::support::follower::{self, Follower, State};
use crate::support::measured::Measured;
use crate::support::netns::{Namespace, feed};
use crate::support::proxy::Proxy;
use crate::support::within;

/// How long a fault lasts that does not end by itself.
const LASTING: Duration = Duration::from_secs(3);
/// How many requests a follower may send to all members together in a second: two to each.
const RATE: f64 = 6.0;
/// How much CPU time the follower may use for its work, in addition to the cost of waiting.
const WORK: Duration = Duration::from_millis(300);

/// Follows a cluster, in a process of its own, with much shorter limits than usual.
#[test]
fn child_follows() {
    let Some(job) = follower::job() else { return };
    let text = |name: &str| job[name].as_str().map(str::to_owned);
    let idle = Duration::from_millis(job["idle"].as_u64().unwrap());
    let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2), idle, ..LIMITS };
    let config = EtcdConfig {
        endpoints: job["endpoints"].as_array().unwrap().iter().map(|url| url.as_str().unwrap().to_owned()).collect(),
        credentials: text("user").zip(text("password").map(Into::into)),
        ca_file: text("ca").map(Into::into),
        client_cert: text("cert").map(Into::into).zip(text("key").map(Into::into)),
        ..config("")
    };
    let inventory = Arc::new(Inventory::new());
    follow(config, NODE.into(), Arc::clone(&inventory), limits).unwrap();
    follower::answer(&inventory);
}

/// Three members, each behind a proxy, and the follower.
struct Cluster {
    members: Vec<Etcd>,
    proxies: Vec<Proxy>,
    measured: Option<Measured>,
    /// The member to which changes are written.
    writer: usize,
    /// Whether authentication is on.
    auth: bool,
    rate: f64,
    work: Duration,
}

impl Cluster {
    fn start(options: [Options; 3]) -> Option<Self> {
        let members = Etcd::cluster(options)?;
        let proxies = members.iter().map(|member| Proxy::to(member.port)).collect();
        let cluster = Cluster { members, proxies, measured: None, writer: 0, auth: false, rate: RATE, work: WORK };
        ["one", "two"].into_iter().for_each(|pod| cluster.put(pod));
        Some(cluster)
    }

    fn plain() -> Option<Self> {
        let mut cluster = Self::start(Default::default())?;
        cluster.follow(json!({}));
        Some(cluster)
    }

    /// Starts the follower.
    fn follow(&mut self, mut job: Value) {
        let scheme = self.members[0].url().split(':').next().unwrap().to_owned();
        job["endpoints"] = self.proxies.iter().map(|proxy| format!("{scheme}://127.0.0.1:{}", proxy.port)).collect();
        job["idle"] = job.get("idle").cloned().unwrap_or(json!(2000));
        let mut follower = Follower::start("etcd::cluster::child_follows", &job);
        within(Duration::from_secs(20), "the first list", || follower.state().up);
        // Some usual events, because their memory is allocated once.
        self.proxies.iter().for_each(Proxy::cut);
        self.proxies.iter().for_each(Proxy::restore);
        self.put("three");
        within(Duration::from_secs(20), "a change", || follower.state().workloads.len() == 3);
        let mut measured = Measured::new(follower);
        measured.is_level("at first", &self.stored());
        self.measured = Some(measured);
    }

    /// Runs etcdctl on the member for writing. Tries again while it has no leader.
    #[track_caller]
    fn run(&self, args: &[&str], input: &[u8]) -> String {
        let user: &[&str] = if self.auth { &["--user", "root:root"] } else { &[] };
        let args = [user, args].concat();
        let mut result = Err(String::new());
        let patience = Duration::from_secs(30);
        within(patience, "etcdctl", || {
            result = self.members[self.writer].run_etcdctl(&args, input);
            result.as_ref().inspect_err(|error| println!("{error}")).is_ok()
        });
        result.unwrap()
    }

    #[track_caller]
    fn put(&self, pod: &str) {
        let (key, value) = endpoint(NODE, "prod", pod, &format!("app-{pod}"));
        self.run(&["put", &key, &value], b"");
    }

    /// What etcd has of this node: the state that the follower should have.
    fn stored(&self) -> State {
        let text = self.run(&["get", "--prefix", &format!("{ROOT}workloadendpoints/")], b"");
        let mut workloads = BTreeMap::new();
        let mut lines = text.lines();
        while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
            let value: Value = serde_json::from_str(value).unwrap();
            if value["spec"]["node"] == NODE {
                workloads.insert(key.to_owned(), value["metadata"]["labels"]["app"].as_str().unwrap().to_owned());
            }
        }
        State { up: true, workloads, ..State::default() }
    }

    #[track_caller]
    fn is_level(&mut self, what: &str) {
        let stored = self.stored();
        self.measured().is_level(what, &stored);
    }

    fn measured(&mut self) -> &mut Measured {
        self.measured.as_mut().unwrap()
    }

    fn asked(&self) -> u64 {
        self.proxies.iter().map(Proxy::asked).sum()
    }

    /// The member to which the follower is connected.
    fn followed(&self) -> usize {
        self.proxies.iter().position(|proxy| proxy.open() > 0).unwrap()
    }

    fn leader(&self) -> usize {
        let is_leader = |member: &Etcd| {
            let status: Value = serde_json::from_str(&member.etcdctl(&["endpoint", "status", "--write-out=json"])).unwrap();
            status[0]["Status"]["leader"] == status[0]["Status"]["header"]["member_id"]
        };
        self.members.iter().position(is_leader).unwrap()
    }

    /// Lets another member write while this one is out of order.
    fn spare(&mut self, member: usize) {
        self.writer = (member + 1) % self.members.len();
    }

    /// Makes a fault that ends. Asserts that changes during and after it arrive, and that it was cheap for the follower.
    #[track_caller]
    fn survives(&mut self, what: &str, fault: impl FnOnce(&mut Self)) {
        let (asked, began, before) = (self.asked(), Instant::now(), self.measured().follower.cost());
        fault(self);
        self.is_level(what);
        self.put(&format!("after-{}", began.elapsed().as_nanos()));
        self.is_level(&format!("a change after it: {what}"));
        let asked = self.asked() - asked;
        let (work, rate) = (self.work, self.rate);
        self.measured().was_cheap(what, &before, began, work, (asked, rate));
    }

    /// Kills all members and starts them again with other arguments and, if there is a snapshot, with its data.
    fn restart(&mut self, args: &[&str], snapshot: Option<&std::path::Path>) {
        self.members.iter_mut().for_each(Etcd::kill);
        for member in &mut self.members {
            member.set_args(args);
            if let Some(snapshot) = snapshot {
                member.restore(snapshot);
            }
        }
        Etcd::start_all(&mut self.members);
    }

    /// Waits for a trouble that contains these words.
    #[track_caller]
    fn is_troubled(&mut self, words: &str) {
        let follower = &mut self.measured().follower;
        within(Duration::from_secs(20), words, || follower.state().troubles.iter().any(|trouble| trouble.contains(words)));
    }
}

#[test]
fn members_fail() {
    let Some(namespace) = Namespace::new("members of an etcd cluster fail") else { return };
    namespace.run(|| {
        let user = |uid| Options { uid: Some(uid), ..Options::default() };
        let Some(mut cluster) = Cluster::start([61_001, 61_002, 61_003].map(user)) else { return };
        cluster.follow(json!({}));
        cluster.survives("the leader is killed", |cluster| dies(cluster, cluster.leader()));
        cluster.survives("the member that is followed is killed", |cluster| dies(cluster, cluster.followed()));
        cluster.survives("the member that is followed is cut off from the others", cut_off);
        cluster.survives("the member that is followed is frozen", |cluster| {
            let followed = cluster.followed();
            cluster.spare(followed);
            cluster.members[followed].freeze();
            cluster.put("frozen");
            cluster.is_level("beside a frozen member");
            cluster.members[followed].thaw();
        });
        cluster.survives("the connection is half open", |cluster| {
            cluster.proxies[cluster.followed()].freeze();
            cluster.put("half-open");
        });
        cluster.survives("no member can be reached", |cluster| {
            cluster.proxies.iter().for_each(Proxy::cut);
            cluster.put("unreachable");
            sleep(LASTING);
            cluster.proxies.iter().for_each(Proxy::restore);
        });
        assert_eq!(cluster.measured().follower.state().resyncs, 0, "watches resume, nothing is listed again");
    });
}

fn dies(cluster: &mut Cluster, member: usize) {
    cluster.spare(member);
    cluster.members[member].kill();
    sleep(LASTING);
    cluster.put(&format!("without-{member}"));
    cluster.is_level("beside a dead member");
    cluster.members[member].start_again();
}

/// Cuts the followed member off from the others with a packet filter. Clients still reach it.
fn cut_off(cluster: &mut Cluster) {
    let followed = cluster.followed();
    cluster.spare(followed);
    let ports: Vec<_> = cluster.members.iter().map(Etcd::peer_port).collect();
    let own = ports[followed];
    let others: Vec<_> = ports.iter().filter(|&&port| port != own).map(u16::to_string).collect();
    let (uid, others) = (61_001 + followed, others.join(","));
    let drops =
        format!("tcp dport {own} drop; tcp sport {own} drop; meta skuid {uid} tcp dport {{ {others} }} ct mark set 1; ct mark 1 drop");
    let rules = format!("table inet cut {{ chain output {{ type filter hook output priority 0; {drops}; }}; }}");
    feed("nft -f -", &rules);
    cluster.put("cut-off");
    cluster.is_level("beside a member that was cut off");
    feed("nft -f -", "delete table inet cut");
}

#[test]
fn gateways_are_switched_off_and_on() {
    let Some(mut cluster) = Cluster::plain() else { return };
    // Each time, the follower tries the gateway paths of three releases.
    cluster.rate = 4.0 * RATE;
    cluster.survives("the gateway is switched off", |cluster| {
        cluster.restart(&["--enable-grpc-gateway=false"], None);
        cluster.put("without-a-gateway");
        cluster.is_troubled("no JSON gateway");
        sleep(LASTING);
        cluster.restart(&[], None);
    });
}

#[test]
fn large_objects() {
    let Some(mut cluster) = Cluster::plain() else { return };
    cluster.work = Duration::from_secs(5);
    cluster.measured().memory = 16 << 10;
    // The largest request that etcd accepts, with key and value: 1.5 MiB.
    let large = |node: &str, pod: &str| {
        let (key, value) = endpoint(node, "prod", pod, pod);
        let mut value: Value = serde_json::from_str(&value).unwrap();
        value["metadata"]["annotations"] = json!({"large": "x".repeat(1_570_000 - value.to_string().len())});
        (key, value.to_string())
    };
    cluster.survives("objects of 1.5 MB", |cluster| {
        for (node, pod) in [(NODE, "large-1"), ("node-2", "large-2"), (NODE, "large-1"), (NODE, "large-3")] {
            let (key, value) = large(node, pod);
            cluster.run(&["put", &key], value.as_bytes());
        }
        cluster.is_level("with large objects");
        assert!(cluster.stored().workloads.len() == 5);
        assert_eq!(cluster.measured().follower.state().resyncs, 0, "the watch brought them");
    });
    // 50 MB as sent, which is more than is kept of one frame.
    for what in ["a history of large objects", "the same again"] {
        cluster.survives(what, |cluster| {
            cluster.proxies.iter().for_each(Proxy::cut);
            for n in 0..25 {
                let (key, value) = large(["node-2", NODE][usize::from(n == 20)], &format!("more-{}", n % 3));
                cluster.run(&["put", &key], value.as_bytes());
            }
            cluster.proxies.iter().for_each(Proxy::restore);
        });
    }
    cluster.survives("large objects are deleted", |cluster| {
        for (node, pod) in [(NODE, "large-1"), (NODE, "large-3"), (NODE, "more-2")] {
            cluster.run(&["del", &large(node, pod).0], b"");
        }
    });
}

/// Revisions go back, and the cluster id is the same.
#[test]
fn restored_from_a_snapshot() {
    let Some(mut cluster) = Cluster::plain() else { return };
    let scratch = Scratch::new();
    let snapshot = scratch.path().join("snapshot");
    cluster.run(&["snapshot", "save", snapshot.to_str().unwrap()], b"");
    cluster.survives("restored from a snapshot", |cluster| {
        (0..20).for_each(|n| cluster.put(&format!("lost-{n}")));
        cluster.is_level("before it is restored");
        cluster.restart(&[], Some(&snapshot));
        assert_eq!(cluster.stored().workloads.len(), 3);
    });
}

#[test]
fn passwords_and_tokens() {
    let Some(mut cluster) = Cluster::start(Default::default()) else { return };
    cluster.members[0].enable_auth("reader", "secret", &format!("{ROOT}workloadendpoints/"));
    cluster.auth = true;
    cluster.follow(json!({"user": "reader", "password": "secret"}));
    let scratch = Scratch::new();
    let snapshot = scratch.path().join("snapshot");
    cluster.run(&["snapshot", "save", snapshot.to_str().unwrap()], b"");
    let password = |cluster: &Cluster, password: &str| {
        cluster.run(&["user", "passwd", "reader", "--interactive=false"], password.as_bytes());
    };
    cluster.survives("another password, and back", |cluster| {
        password(cluster, "another");
        cluster.put("during");
        cluster.is_troubled("ETCD_PASSWORD");
        sleep(LASTING);
        password(cluster, "secret");
    });
    cluster.survives("a token from before a snapshot was restored", |cluster| {
        (0..20).for_each(|n| cluster.put(&format!("lost-{n}")));
        cluster.restart(&[], Some(&snapshot));
        assert_eq!(cluster.stored().workloads.len(), 3);
    });
}

#[test]
fn certificates_are_rotated() {
    let certificates = Certificates::new(None);
    let tls = || Options { tls: Some(certificates.clone()), ..Options::default() };
    let Some(mut cluster) = Cluster::start([tls(), tls(), tls()]) else { return };
    cluster.follow(json!({"ca": certificates.ca(), "cert": certificates.client_cert(), "key": certificates.client_key()}));
    cluster.survives("all certificates are replaced, the CA's too", |cluster| {
        certificates.renew(None);
        cluster.restart(&[], None);
        cluster.put("rotated");
    });
    let kept = certificates.ca().with_extension("kept");
    std::fs::rename(certificates.ca(), &kept).unwrap();
    cluster.survives("the CA's file is missing for a while", |cluster| {
        cluster.proxies.iter().for_each(Proxy::cut);
        cluster.proxies.iter().for_each(Proxy::restore);
        cluster.is_troubled(&format!("ETCD_CA_CERT_FILE: {}: No such file", certificates.ca().display()));
        sleep(LASTING);
        std::fs::rename(&kept, certificates.ca()).unwrap();
    });
}

/// An hour without changes, 300 times as fast: 48 silences of 75 s, and six progress notifications of etcd, which come every ten minutes.
#[test]
fn an_hour_of_silence() {
    let notify = "--experimental-watch-progress-notify-interval=2s".to_owned();
    let options = || Options { args: vec![notify.clone()], ..Options::default() };
    let Some(mut cluster) = Cluster::start([options(), options(), options()]) else { return };
    cluster.follow(json!({"idle": 250}));
    let asked = cluster.asked();
    cluster.survives("an hour of silence", |cluster| {
        for _ in 0..12 {
            sleep(Duration::from_secs(1));
            assert!(cluster.measured().follower.state().up);
        }
        cluster.put("afterwards");
        let follower = &mut cluster.measured().follower;
        within(SOON, "a change after it", || follower.state().workloads.len() == 4);
        assert_eq!(follower.state().resyncs, 0);
    });
    assert!(cluster.asked() - asked < 150, "{} questions in an hour", cluster.asked() - asked);
}
