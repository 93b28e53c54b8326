//! Faults of API servers and of proxies before them. After each fault, the inventory equals the datastore, and memory, threads and
//! descriptors are as before. During the fault, the follower must use little CPU and send few requests.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use calico_accountant::config::ApiGroup;
use calico_accountant::datastore::http;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::kubernetes::{Credentials, Limits, follow};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NODE, bearer, pod};
use crate::support::follower::{self, Follower, State};
use crate::support::kube::Kube;
use crate::support::measured::Measured;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::within;

const PODS: &str = "/api/v1/namespaces/prod/pods";
/// How long a fault lasts that does not end by itself.
const LASTING: Duration = Duration::from_secs(5);
/// What a follower may do in a second: connect and ask, twice.
const RATE: f64 = 4.0;
/// How much CPU time the follower may use for its work.
const WORK: Duration = Duration::from_millis(300);

/// Follows an API server, in a process of its own, with much shorter limits than usual.
#[test]
fn child_follows() {
    let Some(job) = follower::job() else { return };
    let text = |name: &str| job[name].as_str().unwrap().to_owned();
    let credentials = Credentials { server: text("server"), authorization: bearer(&text("token")), ..Credentials::default() };
    let (connect, two) = (Duration::from_secs(1), Duration::from_secs(2));
    let limits = Limits::default();
    let limits = Limits { http: http::Limits { connect, answer: two, idle: two, ..limits.http }, ..limits };
    let inventory = Arc::new(Inventory::new());
    follow(Arc::new(credentials), NODE.into(), ApiGroup::Discover, Arc::clone(&inventory), limits).unwrap();
    follower::answer(&inventory);
}

/// An API server behind a relay and a proxy, and the follower.
struct Cluster {
    kube: Kube,
    relay: Relay,
    proxy: Proxy,
    measured: Measured,
}

impl Cluster {
    fn start() -> Option<Self> {
        let kube = Kube::start()?;
        let token = kube.account(&["/pods"]);
        kube.namespace("prod");
        kube.call("POST", PODS, &pod("one", "app-one"));
        let relay = Relay::to(kube.url());
        let proxy = Proxy::to(relay.port);
        let job = json!({"server": proxy.url(), "token": token});
        let mut follower = Follower::start("kubernetes::faults::child_follows", &job);
        within(Duration::from_secs(20), "the first list", || follower.state().up);
        proxy.cut();
        proxy.restore();
        kube.call("POST", PODS, &pod("two", "app-two"));
        within(Duration::from_secs(20), "a change", || follower.state().workloads.len() == 2);
        let mut cluster = Cluster { kube, relay, proxy, measured: Measured::new(follower) };
        cluster.is_level("at first");
        Some(cluster)
    }

    fn put(&self, name: &str) {
        self.kube.call("POST", PODS, &pod(name, &format!("app-{name}")));
    }

    #[track_caller]
    fn is_level(&mut self, what: &str) {
        let pods = self.kube.call("GET", PODS, &Value::Null);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of = |pod: &Value| (format!("prod/{}", text(&pod["metadata"]["name"])), text(&pod["metadata"]["labels"]["app"]));
        let workloads = pods["items"].as_array().unwrap().iter().map(of).collect();
        self.measured.is_level(what, &State { up: true, workloads, ..State::default() });
    }

    /// Makes a fault that ends. Asserts that changes during and after it arrive, and that it was cheap for the follower.
    #[track_caller]
    fn survives(&mut self, what: &str, fault: impl FnOnce(&mut Self)) {
        let (asked, began, before) = (self.proxy.asked(), Instant::now(), self.measured.follower.cost());
        fault(self);
        self.is_level(what);
        self.put(&format!("after-{}", began.elapsed().as_nanos()));
        self.is_level(&format!("a change after it: {what}"));
        let asked = self.proxy.asked() - asked;
        self.measured.was_cheap(what, &before, began, WORK, (asked, RATE));
    }

    #[track_caller]
    fn is_down(&mut self) {
        within(Duration::from_secs(20), "the fault shows", || !self.measured.follower.state().up);
    }

    /// Lets the relay answer in place of the server for a while, and makes pods meanwhile.
    fn answered(&mut self, status: &str, headers: &str, text: &str) {
        self.survives(status, |cluster| {
            cluster.relay.answer(status, headers, text);
            cluster.proxy.cut();
            cluster.proxy.restore();
            cluster.put(&format!("during-{}", &status[..3]));
            cluster.is_down();
            sleep(LASTING);
            cluster.relay.pass();
        });
    }
}

#[test]
fn killed_and_frozen() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.survives("the server is killed", |cluster| {
        cluster.kube.kill();
        cluster.is_down();
        sleep(LASTING);
        cluster.kube.start_again();
        cluster.put("restarted");
    });
    // A new server may not know changes as old as the position of the watch.
    assert!(cluster.measured.follower.state().resyncs <= 1, "listed again more than once");
    cluster.survives("the server is frozen", |cluster| {
        cluster.put("before");
        cluster.kube.signal(Signal::STOP);
        cluster.is_down();
        sleep(LASTING);
        cluster.kube.signal(Signal::CONT);
        cluster.kube.wait_until_ready();
    });
    cluster.survives("the connection is half open", |cluster| {
        cluster.proxy.freeze();
        cluster.put("half-open");
    });
}

#[test]
fn something_between_answers() {
    const STATUS: &str =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too many requests","reason":"TooManyRequests","code":429}"#;
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.answered("429 Too Many Requests", "Content-Type: application/json\r\nRetry-After: 1\r\n", STATUS);
    cluster.answered("500 Internal Server Error", "", "");
    cluster.answered("502 Bad Gateway", "Content-Type: text/html\r\n", "<html><h1>502 Bad Gateway</h1></html>");
    cluster.answered("503 Service Unavailable", "Retry-After: 86400\r\nConnection: close\r\n", "no server is available");
    cluster.answered("504 Gateway Timeout", "", "upstream request timeout");
}
