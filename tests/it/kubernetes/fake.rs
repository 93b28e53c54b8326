//! A fake API server for what a real one does not do on request: it sends captured answers byte for byte, and misbehaves.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use calico_accountant::config::ApiGroup;
use calico_accountant::datastore::http;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::kubernetes::{Access, Credentials, Error, Limits, follow};

use super::{bearer, ip_of, synced, troubled, workload};
use crate::support::{fixture, within};

const LIST: &str = "kubernetes/pods-list-node1-rv0.http";

/// The requests that came: each one's target, headers and time.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, String, Instant)>>>);

impl Log {
    fn targets(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(target, ..)| target.clone()).filter(|target| target.contains(part)).collect()
    }

    fn times(&self, part: &str) -> Vec<Instant> {
        self.0.lock().unwrap().iter().filter(|(target, ..)| target.contains(part)).map(|(.., at)| *at).collect()
    }

    fn headers(&self, part: &str) -> String {
        let log = self.0.lock().unwrap();
        log.iter().find(|(target, ..)| target.contains(part)).map(|(_, headers, _)| headers.to_ascii_lowercase()).unwrap_or_default()
    }
}

/// Answers each request. `answer` gets its target, its headers and the number of earlier requests of the same kind (list or watch). It
/// writes the whole answer. The connection is closed after it.
fn server(answer: impl Fn(&str, &str, usize, &mut TcpStream) + Send + Sync + 'static) -> (Credentials, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    let kept = log.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (log, answer) = (log.clone(), Arc::clone(&answer));
            thread::spawn(move || {
                let Some((target, headers)) = request(&stream) else { return };
                let watch = target.contains("watch=true");
                let before = log.targets("").iter().filter(|target| target.contains("watch=true") == watch).count();
                log.0.lock().unwrap().push((target.clone(), headers.clone(), Instant::now()));
                answer(&target, &headers, before, &mut stream);
            });
        }
    });
    (Credentials { server, authorization: bearer("token"), ..Credentials::default() }, kept)
}

fn request(stream: &TcpStream) -> Option<(String, String)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let target = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    Some((target, headers.join("\n")))
}

fn captured(name: &str, stream: &mut TcpStream) {
    _ = stream.write_all(fixture::text(&format!("kubernetes/{name}.http")).as_bytes());
}

fn said(status: &str, headers: &str, body: &str, stream: &mut TcpStream) {
    _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Connection: close\r\n\r\n{body}");
}

/// Answers a watch on which nothing happens.
fn silence(stream: &mut TcpStream) {
    said("200 OK", "", "", stream);
    thread::sleep(Duration::from_secs(30));
}

fn start(access: impl Access + 'static, limits: Limits) -> Arc<Inventory> {
    let inventory = Arc::new(Inventory::new());
    follow(Arc::new(access), "node1".into(), ApiGroup::Discover, Arc::clone(&inventory), limits).unwrap();
    inventory
}

fn names(inventory: &Inventory) -> Vec<String> {
    inventory.workloads().into_iter().map(|(key, _)| key).collect()
}

/// A real server's list and watch: a pod is bound, runs, and is deleted. A bookmark and the end of the watch follow.
#[test]
fn captured_answers() {
    let (credentials, log) = server(|target, _, before, stream| match (target.contains("watch=true"), before) {
        (false, _) => captured("pods-list-node1-rv0", stream),
        (true, 0) => {
            thread::sleep(Duration::from_millis(1200));
            captured("pods-watch-node1", stream);
        }
        _ => silence(stream),
    });
    let inventory = start(credentials, Limits::default());
    synced(&inventory);
    let expected = ["default/pending-0", "prod/db-0", "prod/web-7c9d8-abcde", "shop/cart-6f5b-xyz12", "shop/job-1-zzzzz"];
    assert_eq!(names(&inventory), expected);
    assert_eq!(ip_of(&inventory, "prod", "web-7c9d8-abcde").as_deref(), Some("10.65.1.2,fd00:65::1:2/128"));
    assert_eq!(ip_of(&inventory, "shop", "job-1-zzzzz").as_deref(), Some(""), "finished");
    within(Duration::from_secs(5), "a second watch", || log.targets("watch=true").len() == 2);
    assert_eq!(names(&inventory), expected, "what came went again");
    assert!(log.targets("watch=true")[1].contains("resourceVersion=420"), "after the bookmark");
    assert_eq!((inventory.skipped_objects(), log.targets("limit=").len()), (0, 1));
    assert!(inventory.up());
    let headers = log.headers("limit=");
    assert!(headers.contains("accept-encoding: gzip") && headers.contains("authorization: bearer token"), "{headers}");
    assert!(log.headers("watch=true").contains("accept-encoding: identity"));
}

/// 410 has two forms: an ERROR inside a 200, and the status of a later page.
#[test]
fn expired_positions() {
    let (credentials, log) = server(|target, _, before, stream| match (target.contains("watch=true"), before) {
        (false, 0) if !target.contains("continue") => captured("page1-pods-node1", stream),
        (false, _) if target.contains("continue") => captured("410-continue-expired-pods-node1", stream),
        (false, _) => captured("pods-list-node1-rv0", stream),
        (true, 0) => captured("watch-error-410-pods", stream),
        _ => silence(stream),
    });
    let inventory = start(credentials, Limits::default());
    within(Duration::from_secs(5), "a watch after the second list", || log.targets("watch=true").len() == 2);
    assert_eq!(inventory.workload_count(), 4);
    let lists: Vec<_> = log.targets("limit=").iter().map(|target| target.contains("continue=")).collect();
    assert_eq!(lists, [false, true, false, false], "page, expired page, from the start, and after the expired watch");
    assert!(!log.targets("continue=")[0].contains("resourceVersion"));
    assert_eq!(inventory.resyncs(), 1);
    assert!(inventory.up());
}

#[test]
fn a_named_delay_is_kept() {
    let (credentials, log) = server(|target, _, before, stream| match (target.contains("watch=true"), before) {
        (false, 0) => captured("429-crd-storage-reinitializing-list", stream),
        (false, 1) => captured("504-future-rv-list", stream),
        (false, _) => captured("pods-list-node1-rv0", stream),
        (true, _) => silence(stream),
    });
    let inventory = start(credentials, Limits::default());
    synced(&inventory);
    let times = log.times("limit=");
    assert!(times[1] - times[0] >= Duration::from_secs(1), "Retry-After: 1");
    // A list from the future is started again immediately, without a minimum version.
    assert!(times[2] - times[1] < Duration::from_secs(1));
}

/// Gives another token after the first was refused, as a plugin does.
struct Renewing(Mutex<Credentials>);

impl Access for Renewing {
    fn current(&self) -> Result<Credentials, Error> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn refused(&self, _credentials: &Credentials) {
        self.0.lock().unwrap().authorization = bearer("renewed");
    }
}

#[test]
fn an_expired_token_is_renewed_and_the_question_repeated() {
    let (credentials, log) = server(|target, headers, _, stream| match headers.contains("Bearer renewed") {
        false => captured("401-expired-token", stream),
        true if target.contains("watch=true") => silence(stream),
        true => captured("pods-list-node1-rv0", stream),
    });
    let inventory = start(Renewing(Mutex::new(credentials)), Limits::default());
    synced(&inventory);
    assert_eq!(log.targets("limit=").len(), 2);
    let times = log.times("limit=");
    assert!(times[1] - times[0] < Duration::from_millis(200), "at once");
}

/// A refused token is not sent again and again, although it is looked at every second.
#[test]
fn a_refused_token_is_held_back() {
    let (credentials, log) = server(|_, _, _, stream| captured("401-expired-token", stream));
    let inventory = start(credentials, Limits::default());
    troubled(&inventory, &["does not accept our token"]);
    thread::sleep(Duration::from_secs(8));
    assert!((2..=5).contains(&log.targets("").len()), "{}", log.targets("").len());
}

/// Shortly after its start, a server may refuse to name its API groups, although everyone has this right. Then Calico's own group is used.
#[test]
fn without_the_names_of_the_groups_calicos_own_is_asked() {
    let (credentials, log) = server(|target, _, _, stream| match target {
        "/apis" => captured("403-pods-nobody", stream),
        _ if target.contains("watch=true") => silence(stream),
        _ => captured("pods-list-node1-rv0", stream),
    });
    let inventory = start(credentials, Limits::default());
    inventory.want_policies();
    within(Duration::from_secs(5), "Calico's policies", || log.targets("/apis/crd.projectcalico.org/v1/").len() >= 2);
    assert!(log.targets("sendInitialEvents").is_empty(), "streaming lists are not everywhere");
}

#[test]
fn a_missing_right_is_explained() {
    let (credentials, _) = server(|_, _, _, stream| captured("403-pods-nobody", stream));
    let inventory = start(credentials, Limits::default());
    troubled(&inventory, &["list pods of node node1", "system:serviceaccount:kube-system:nobody", "ClusterRole"]);
}

/// Watches that end immediately or with an error are not repeated in a busy loop. The list is kept.
#[test]
fn watches_that_fail_at_once() {
    const ERROR: &str = r#"{"type":"ERROR","object":{"kind":"Status","message":"etcdserver: no leader","code":500}}"#;
    let empty: fn(&mut TcpStream) = |stream| captured("watch-pomlist-accept-immediate-eof", stream);
    let failing: fn(&mut TcpStream) = |stream| said("200 OK", "", ERROR, stream);
    for (watch, words) in [(empty, "ended a watch immediately"), (failing, "no leader")] {
        let (credentials, log) = server(move |target, _, _, stream| match target.contains("watch=true") {
            false => captured("pods-list-node1-rv0", stream),
            true => watch(stream),
        });
        let inventory = start(credentials, Limits::default());
        troubled(&inventory, &[words]);
        thread::sleep(Duration::from_secs(5));
        assert!((3..=12).contains(&log.targets("watch=true").len()), "{}", log.targets("watch=true").len());
        assert_eq!((inventory.workload_count(), log.targets("limit=").len()), (4, 1));
    }
}

/// A server that was restored from a backup accepts a watch from its future, and is silent.
#[test]
fn long_silence_ends_in_a_list() {
    let (credentials, log) = server(|target, _, _, stream| match target.contains("watch=true") {
        false => captured("pods-list-node1-rv0", stream),
        true => silence(stream),
    });
    let second = Duration::from_secs(1);
    let limits = Limits::default();
    let http = http::Limits { idle: second, ..limits.http };
    let inventory = start(credentials, Limits { http, silence: 3 * second, ..limits });
    within(6 * second, "a second list", || inventory.resyncs() == 1);
    assert!((3..=4).contains(&log.targets("watch=true").len()), "each silent watch is opened anew");
    assert!(inventory.up());
    assert_eq!(log.targets("limit=").len(), 2);
}

/// A line without end is not kept. Listing again replaces what it would have said.
#[test]
fn a_flood_ends_in_a_list() {
    let (credentials, log) = server(|target, _, _, stream| match target.contains("watch=true") {
        false => captured("pods-list-node1-rv0", stream),
        true => {
            said("200 OK", "", r#"{"type":"ADDED","object":{"metadata":{"name":""#, stream);
            let junk = vec![b'x'; 1 << 20];
            while stream.write_all(&junk).is_ok() {}
        }
    });
    let inventory = start(credentials, Limits::default());
    within(Duration::from_secs(20), "a second list", || log.targets("limit=").len() == 2);
    assert_eq!(inventory.workload_count(), 4);
}

/// An object that cannot be parsed is skipped. The others are used, in a list and in a watch.
#[test]
fn broken_objects_are_skipped() {
    let pod = |name: &str, spec: &str| format!(r#"{{"metadata":{{"name":"{name}","namespace":"a","resourceVersion":"8"}},"spec":{spec}}}"#);
    let (good, bad) = (pod("good", r#"{"nodeName":"node1"}"#), pod("bad", r#"{"nodeName":7}"#));
    let list = format!(r#"{{"items":[{bad},{good},7],"metadata":{{"resourceVersion":"7"}}}}"#);
    let event = |object: &str| format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n");
    let events = event(&bad) + &event("[]") + &event(&pod("late", r#"{"nodeName":"node1"}"#));
    let (credentials, log) = server(move |target, _, _, stream| match target.contains("watch=true") {
        false => said("200 OK", "", &list, stream),
        true => {
            said("200 OK", "", "", stream);
            // In pieces, as networks deliver them.
            for piece in events.as_bytes().chunks(100) {
                _ = stream.write_all(piece);
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_secs(30));
        }
    });
    let inventory = start(credentials, Limits::default());
    within(Duration::from_secs(5), "what came after", || workload(&inventory, "a", "late").is_some());
    assert_eq!(names(&inventory), ["a/good", "a/late"]);
    assert_eq!((inventory.skipped_objects(), log.targets("").len()), (4, 2));
    assert!(inventory.up());
}

/// A server closes connections that were idle for a long time. The next request uses a new connection, and no trouble is reported.
#[test]
fn a_connection_closed_for_being_idle() {
    let list = fixture::text(LIST).replace("Connection: close\r\n", "");
    let (credentials, log) = server(move |target, _, _, stream| match target.contains("watch=true") {
        // The client may use the connection again, and finds it closed.
        false => _ = stream.write_all(list.as_bytes()),
        true => silence(stream),
    });
    let inventory = start(credentials, Limits::default());
    within(Duration::from_secs(1), "a watch", || log.targets("watch=true").len() == 1);
    assert!(inventory.up(), "{:?}", inventory.troubles());
}

/// An incomplete list changes nothing.
#[test]
fn half_a_list_changes_nothing() {
    let list = fixture::text(LIST);
    let (credentials, _) = server(move |target, _, before, stream| match (target.contains("watch=true"), before) {
        (false, 0) => captured("pods-list-node1-rv0", stream),
        (false, _) => _ = stream.write_all(&list.as_bytes()[..list.len() / 2]),
        (true, _) => captured("watch-error-410-pods", stream),
    });
    let inventory = start(credentials, Limits::default());
    within(Duration::from_secs(5), "the broken list is noticed", || !inventory.up() && inventory.synced());
    assert_eq!(inventory.workload_count(), 4);
}

/// A web server's page gives an error and no panic.
#[test]
fn something_that_is_no_api_server() {
    let (credentials, _) = server(|_, _, _, stream| said("200 OK", "", "<html>welcome</html>", stream));
    let url = credentials.server.clone();
    let inventory = start(credentials, Limits::default());
    troubled(&inventory, &[&url, "unexpected"]);
    let (credentials, _) = server(|_, _, _, stream| said("302 Found", "Location: http://127.0.0.1:1/\r\n", "", stream));
    let inventory = start(credentials, Limits::default());
    troubled(&inventory, &["answered 302"]);
}

/// Pages without end and without an object.
#[test]
fn a_list_without_end_is_given_up() {
    let page = r#"{"metadata":{"resourceVersion":"7","continue":"more"},"items":[]}"#;
    let (credentials, _) = server(move |_, _, _, stream| said("200 OK", "", page, stream));
    let limits = Limits::default();
    let http = http::Limits { list: Duration::from_secs(2), ..limits.http };
    let inventory = start(credentials, Limits { http, ..limits });
    troubled(&inventory, &["sends too much: a list that did not end within 2s"]);
    assert!(!inventory.synced());
}
