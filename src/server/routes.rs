//! What is answered to which request: pure, apart from asking the [`Application`].

use std::sync::{Arc, Mutex, PoisonError};

use super::gzip::gzip;
use super::{Application, api};
use crate::web;

/// A request, as far as the answer depends on it.
pub(super) struct Ask<'a> {
    /// `GET`, `HEAD`, …
    pub method: &'a str,
    /// The request target: a path, maybe with a query.
    pub target: &'a str,
    /// The values of all `Accept-Encoding` headers.
    pub accept_encoding: Vec<&'a str>,
}

/// An answer. For `HEAD` the body is the one `GET` would get; the server leaves it out.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Arc<Vec<u8>>,
}

impl Reply {
    fn new(status: u16, content_type: &'static str, body: Arc<Vec<u8>>) -> Self {
        let headers = vec![
            ("Content-Type", content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Server", "calico-accountant"),
        ];
        Self { status, headers, body }
    }

    /// An answer of one line.
    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", Arc::new(format!("{text}\n").into_bytes()))
    }

    fn with(mut self, header: &'static str, value: &'static str) -> Self {
        self.headers.push((header, value));
        self
    }
}

fn not_found() -> Reply {
    Reply::text(404, "not found; there are /metrics, /healthz, /readyz, /api/v1/ and /")
}

/// Answers a request.
pub(super) fn answer(app: &dyn Application, ask: &Ask<'_>) -> Reply {
    let answer: fn(&dyn Application, &Ask<'_>) -> Reply = match path(ask) {
        "/metrics" => metrics,
        "/healthz" => |_, _| Reply::text(200, "ok"),
        "/readyz" => |app, _| match app.ready() {
            Ok(()) => Reply::text(200, "ok"),
            Err(reason) => Reply::text(503, &reason.replace(['\n', '\r'], " ")),
        },
        api if api.starts_with(api::PREFIX) => self::api,
        page if web::file(page).is_some() => self::page,
        _ => return not_found(),
    };
    if !["GET", "HEAD"].contains(&ask.method) {
        return Reply::text(405, "only GET and HEAD are allowed").with("Allow", "GET, HEAD");
    }
    answer(app, ask)
}

fn metrics(app: &dyn Application, ask: &Ask<'_>) -> Reply {
    packed(ask, 200, "text/plain; version=0.0.4; charset=utf-8", app.metrics())
}

/// One at a time: each is a text of its own, on a large node of megabytes.
fn api(app: &dyn Application, ask: &Ask<'_>) -> Reply {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = api::answer(app, path(ask));
    packed(ask, status, "application/json", Arc::new(body))
}

/// Compressed, if the client likes that.
fn packed(ask: &Ask<'_>, status: u16, content_type: &'static str, body: Arc<Vec<u8>>) -> Reply {
    let compressed = if accepts_gzip(&ask.accept_encoding) { gzip(&body) } else { None };
    let (encoded, body) = compressed.map_or((false, body), |compressed| (true, compressed));
    let reply = Reply::new(status, content_type, body).with("Vary", "Accept-Encoding");
    if encoded { reply.with("Content-Encoding", "gzip") } else { reply }
}

/// The request target without its query.
fn path<'a>(ask: &Ask<'a>) -> &'a str {
    ask.target.split_once('?').map_or(ask.target, |(path, _)| path)
}

/// Whether gzip is acceptable (RFC 9110, 12.5.3): named itself, or else covered by `*`, and not with a weight of 0.
fn accepts_gzip(values: &[&str]) -> bool {
    let weight_of = |wanted: &[&str]| {
        let codings = values.iter().flat_map(|value| value.split(','));
        codings.map(coding).find(|(name, _)| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))).map(|(_, weight)| weight)
    };
    weight_of(&["gzip", "x-gzip"]).or_else(|| weight_of(&["*"])).is_some_and(|weight| weight > 0.0)
}

/// `gzip;q=0.5` as name and weight; a weight that is no number counts as 0, so that nothing unwanted is sent.
fn coding(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// A file of the page, with what a browser may do with it.
fn page(_: &dyn Application, ask: &Ask<'_>) -> Reply {
    let Some(file) = web::file(path(ask)) else { return not_found() };
    packed(ask, 200, file.content_type, Arc::new(file.content.to_vec()))
        .with("Content-Security-Policy", web::POLICY)
        .with("Referrer-Policy", "no-referrer")
        .with("Cross-Origin-Resource-Policy", "same-origin")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use flate2::read::GzDecoder;

    use super::*;

    struct Fake(Result<(), String>);

    impl Application for Fake {
        fn metrics(&self) -> Arc<Vec<u8>> {
            Arc::new(b"up 1\n".to_vec())
        }

        fn report(&self) -> Arc<crate::report::Report> {
            Arc::default()
        }

        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }
    }

    fn ask(method: &str, target: &str, accept_encoding: &[&str]) -> Reply {
        answer(&Fake(Ok(())), &Ask { method, target, accept_encoding: accept_encoding.to_vec() })
    }

    fn header(reply: &Reply, name: &str) -> Option<&'static str> {
        reply.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value)
    }

    #[test]
    fn paths_and_methods() {
        for (method, target, status) in [
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("GET", "/metrics?x=1", 200),
            ("GET", "/", 200),
            ("GET", "/healthz", 200),
            ("GET", "/readyz", 200),
            ("POST", "/metrics", 405),
            ("DELETE", "/", 405),
            ("get", "/", 405),
            ("GET", "/api/v1/status", 200),
            ("HEAD", "/api/v1/workloads?x", 200),
            ("POST", "/api/v1/status", 405),
            ("GET", "/api/v1/", 404),
            ("GET", "/api/v1/workloads/eth0", 404),
            ("GET", "/api", 404),
            ("GET", "/metrics/", 404),
            ("POST", "/nope", 404),
            ("GET", "", 404),
            ("GET", "*", 404),
        ] {
            let reply = ask(method, target, &[]);
            assert_eq!(reply.status, status, "{method} {target}");
            assert_eq!(header(&reply, "Allow"), (status == 405).then_some("GET, HEAD"));
        }
    }

    #[test]
    fn accept_encoding() {
        for (values, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["GZIP"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;q=0, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["br", "gzip"], true),
            (&["identity"], false),
            (&["gzip;q=x"], false),
            (&["gzipped"], false),
            (&[""], false),
        ] {
            assert_eq!(accepts_gzip(values), expected, "{values:?}");
        }
    }

    #[test]
    fn metrics_are_compressed_only_on_request() {
        let plain = ask("GET", "/metrics", &[]);
        assert_eq!(**plain.body, *b"up 1\n");
        assert_eq!(header(&plain, "Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert_eq!((header(&plain, "Vary"), header(&plain, "Content-Encoding")), (Some("Accept-Encoding"), None));
        let packed = ask("GET", "/metrics", &["gzip"]);
        assert_eq!((header(&packed, "Vary"), header(&packed, "Content-Encoding")), (Some("Accept-Encoding"), Some("gzip")));
        let mut text = String::new();
        GzDecoder::new(packed.body.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "up 1\n");
    }

    #[test]
    fn readiness_gives_its_reason_in_one_line() {
        let reply = answer(&Fake(Err("no\nsync".into())), &Ask { method: "GET", target: "/readyz", accept_encoding: vec![] });
        assert_eq!((reply.status, &**reply.body), (503, &b"no sync\n"[..]));
    }

    /// However many ask, one answer of the API is made at a time.
    #[test]
    fn the_api_is_for_one_at_a_time() {
        struct Slow(AtomicUsize);
        impl Application for Slow {
            fn metrics(&self) -> Arc<Vec<u8>> {
                Arc::default()
            }
            fn report(&self) -> Arc<crate::report::Report> {
                assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::sleep(std::time::Duration::from_millis(5));
                self.0.fetch_sub(1, Ordering::SeqCst);
                Arc::default()
            }
            fn ready(&self) -> Result<(), String> {
                Ok(())
            }
        }
        let app = Slow(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let ask = Ask { method: "GET", target: "/api/v1/policies", accept_encoding: vec!["gzip"] };
                scope.spawn(|| assert_eq!(answer(&app, &{ ask }).status, 200));
            }
        });
    }

    #[test]
    fn the_page_may_use_its_own_files_and_nothing_else() {
        for (target, content_type) in
            [("/", "text/html; charset=utf-8"), ("/?x", "text/html; charset=utf-8"), ("/page/app.js", "text/javascript; charset=utf-8")]
        {
            let reply = ask("GET", target, &[]);
            assert_eq!((reply.status, header(&reply, "Content-Type")), (200, Some(content_type)));
            let policy = header(&reply, "Content-Security-Policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        }
        assert_eq!(ask("GET", "/page/nothing.js", &[]).status, 404);
    }
}
