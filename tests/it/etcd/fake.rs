//! A fake gateway for what a real etcd of this release does not do: the framing of other releases, floods.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use calico_accountant::etcd::{LIMITS, Limits};

use super::{NODE, SOON, app_of, config, endpoint, start, synced};
use crate::support::within;

/// Answers `POST <path>` with what `answer` writes. The answer to a watch ends when `answer` returns.
pub fn gateway(answer: impl Fn(&str, &str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &str, &mut TcpStream)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = request.split(' ').nth(1).unwrap_or_default();
    answer(path, &String::from_utf8(body).unwrap(), &mut stream);
}

/// Writes the head of an answer without a length, which ends with the connection.
pub fn head(stream: &mut TcpStream, status: &str) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
}

fn kv((key, value): &(String, String), revision: u32) -> String {
    let [key, value] = [key, value].map(|text| BASE64_STANDARD.encode(text));
    format!(r#"{{"key":"{key}","mod_revision":"{revision}","value":"{value}"}}"#)
}

pub const HEADER: &str = r#""header":{"cluster_id":"1","revision":"10"}"#;

/// Answers with one workload, `listed`.
fn range(body: &str, stream: &mut TcpStream) {
    head(stream, "200 OK");
    let object = kv(&endpoint(NODE, "prod", "listed", "web"), 5);
    let kvs = if body.contains("\"keys_only\":true") && body.contains("globalnetwork") { String::new() } else { object };
    let _ = write!(stream, "{{{HEADER},\"kvs\":[{kvs}],\"count\":\"1\"}}");
}

/// etcd 3.2 has `/v3alpha`, and sends frames with nothing between them, in pieces.
#[test]
fn an_old_etcd_without_delimiters() {
    let url = gateway(|path, body, stream| match path {
        "/v3alpha/kv/range" => range(body, stream),
        "/v3alpha/watch" => {
            head(stream, "200 OK");
            let events = |pod| format!(r#"{{"result":{{{HEADER},"events":[{{"kv":{}}}]}}}}"#, kv(&endpoint(NODE, "prod", pod, "}{"), 11));
            let frames = format!(r#"{{"result":{{{HEADER},"created":true}}}}{}{}"#, events("one"), events("two"));
            for piece in frames.as_bytes().chunks(100) {
                let _ = stream.write_all(piece);
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_secs(30));
        }
        _ => {
            head(stream, "404 Not Found");
            let _ = stream.write_all(b"404 page not found\n");
        }
    });
    let inventory = start(config(&url));
    synced(&inventory);
    assert!(app_of(&inventory, "listed").is_some());
    within(SOON, "events without delimiters", || app_of(&inventory, "two").as_deref() == Some("}{"));
    assert_eq!(inventory.resyncs(), 0);
}

/// A cancelled watch says so once and remains open. It must be taken as ended.
#[test]
fn a_cancelled_watch_that_stays_open() {
    let (watches, starts) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&starts);
    let url = gateway(move |path, body, stream| match path {
        "/v3/kv/range" => range(body, stream),
        "/v3/watch" => {
            head(stream, "200 OK");
            seen.lock().unwrap().push(body.to_owned());
            let progress = r#"{"result":{"header":{"cluster_id":"1","revision":"17"}}}"#;
            let cancel = r#"{"result":{"header":{"cluster_id":"1"},"canceled":true,"cancel_reason":"etcdserver: no leader"}}"#;
            let first = watches.fetch_add(1, Ordering::SeqCst) == 0;
            let end = if first { cancel } else { "" };
            let _ = write!(stream, "{{\"result\":{{{HEADER},\"created\":true}}}}\n{}\n{end}\n", if first { progress } else { "" });
            thread::sleep(Duration::from_secs(30));
        }
        _ => head(stream, "404 Not Found"),
    });
    start(config(&url));
    within(Duration::from_secs(5), "a second watch", || starts.lock().unwrap().len() == 2);
    let second = starts.lock().unwrap()[1].clone();
    assert!(second.contains("\"start_revision\":18"), "resumed after the progress notification: {second}");
}

/// A frame without end is not kept. Listing again replaces what it would have said.
#[test]
fn a_flood_ends_in_a_new_list() {
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lists);
    let url = gateway(move |path, body, stream| match path {
        "/v3/kv/range" => {
            counted.fetch_add(usize::from(body.contains("range_end")), Ordering::SeqCst);
            range(body, stream);
        }
        "/v3/watch" => {
            head(stream, "200 OK");
            let _ = write!(stream, r#"{{"result":{{{HEADER},"events":[{{"kv":{{"key":""#);
            let junk = vec![b'A'; 1 << 20];
            while stream.write_all(&junk).is_ok() {}
        }
        _ => head(stream, "404 Not Found"),
    });
    let inventory = start(config(&url));
    within(Duration::from_secs(20), "a second list", || lists.load(Ordering::SeqCst) >= 2);
    assert!(app_of(&inventory, "listed").is_some());
}

/// A web server's page, or an object of another kind, gives an error and no panic.
#[test]
fn something_that_is_not_etcd() {
    let url = gateway(|_, _, stream| {
        head(stream, "200 OK");
        let _ = stream.write_all(b"<html>welcome</html>");
    });
    let inventory = start(config(&url));
    super::troubled(&inventory, &[&url, "unexpected"]);
}

/// Tests a list without end that has nothing of this node, and one that returns to an earlier place.
#[test]
fn a_list_without_end_is_given_up() {
    let page = |namespace: usize| {
        let key = BASE64_STANDARD.encode(endpoint("other", &format!("ns-{namespace:09}"), "web", "web").0);
        format!("{{{HEADER},\"kvs\":[{{\"key\":\"{key}\"}}],\"more\":true,\"count\":\"7\"}}")
    };
    for (endless, words) in [(true, "a list that did not end within 2s"), (false, "a page that ends outside of the requested range")] {
        let pages = AtomicUsize::new(0);
        let url = gateway(move |_, body, stream| {
            head(stream, "200 OK");
            let _ = match body.contains("\"limit\":0") {
                true => write!(stream, "{{{HEADER}}}"),
                false => write!(stream, "{}", page(if endless { pages.fetch_add(1, Ordering::SeqCst) } else { 7 })),
            };
        });
        let limits = Limits { list: Duration::from_secs(2), ..LIMITS };
        let inventory = super::start_within(config(&url), limits);
        super::troubled(&inventory, &[words]);
        assert!(!inventory.synced());
    }
}
