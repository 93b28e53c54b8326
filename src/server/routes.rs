//! Maps requests to answers. Pure, apart from asking the [`Application`].

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::reply::Reply;
use super::request::Request;
use super::{Application, api};
use crate::web;

/// An answer that takes time to make. Clients that ask for it while it is being made share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Metrics,
    Ready,
    Api(String),
    Page(web::File),
}

/// Returns what has to be made for a request to a server with these names. The error is an answer that is ready.
pub(super) fn wanted(request: &Request, names: &[String]) -> Result<Resource, Reply> {
    let resource = match &*request.path {
        "/metrics" => Ok(Resource::Metrics),
        "/healthz" => Err(Reply::text(200, "ok")),
        "/readyz" => Ok(Resource::Ready),
        // Only these depend on the query. All other answers are shared, whatever the query.
        api if api::BY_QUERY.contains(&api) => Ok(Resource::Api(format!("{api}?{}", request.query.as_deref().unwrap_or_default()))),
        api if api.starts_with(api::PREFIX) => Ok(Resource::Api(api.to_owned())),
        path => Ok(web::file(path)
            .map(Resource::Page)
            .ok_or_else(|| Reply::text(404, "not found; there are /metrics, /healthz, /readyz, /api/v1/, /runbook and /"))?),
    };
    match resource {
        _ if !request.may_get => Err(Reply::text(405, "only GET and HEAD are allowed").with("Allow", "GET, HEAD")),
        _ if request.has_body => Err(Reply::text(413, "no request here has a body")),
        Ok(Resource::Api(_) | Resource::Page(_)) => misdirected(request.host.as_deref(), names).map_or(resource, Err),
        resource => resource,
    }
}

/// Refuses a host that is not one of the server's names. Otherwise a foreign page whose owner has pointed its name at the server's address
/// (DNS rebinding) could read the answers. Such a name is never an address or `localhost`, and browsers always send the host.
fn misdirected(host: Option<&str>, names: &[String]) -> Option<Reply> {
    let host = host?.trim_matches(['[', ']']);
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut own = names.iter().map(|name| &**name).chain(["localhost"]);
    let is_own = host.parse::<IpAddr>().is_ok() || own.any(|name| name == "*" || name.eq_ignore_ascii_case(host));
    let why = "unknown host name: use the address, localhost or the node's name, or add the name to ALLOWED_HOSTS";
    (!is_own).then(|| Reply::text(421, why))
}

impl Resource {
    /// Reports whether it is a scrape or a probe. These have priority over what users view.
    pub fn is_watched(&self) -> bool {
        matches!(self, Resource::Metrics | Resource::Ready)
    }

    /// Makes the answer. A panic fails only this answer.
    pub fn make(&self, app: &dyn Application) -> Reply {
        let make = || match self {
            Resource::Metrics => Reply::packable(200, "text/plain; version=0.0.4; charset=utf-8", app.metrics()),
            Resource::Ready => match app.ready() {
                Ok(()) => Reply::text(200, "ok"),
                Err(reason) => Reply::text(503, &reason.replace(['\n', '\r'], " ")),
            },
            Resource::Api(path) => {
                let (status, json) = api::answer(app, path);
                Reply::packable(status, "application/json", Arc::new(json))
            }
            Resource::Page(file) => Reply::packable(200, file.content_type, Arc::new(file.content.to_vec()))
                .with("Content-Security-Policy", web::POLICY)
                .with("Referrer-Policy", "no-referrer")
                .with("Cross-Origin-Resource-Policy", "same-origin"),
        };
        catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| Reply::text(500, "this answer failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The function is called for every answer that is made.
    struct Fake(fn() -> Result<(), String>);

    impl Application for Fake {
        fn metrics(&self) -> Arc<Vec<u8>> {
            _ = self.ready();
            Arc::new(b"up 1\n".to_vec())
        }

        fn report(&self) -> Arc<crate::report::Report> {
            _ = self.ready();
            Arc::default()
        }

        fn ready(&self) -> Result<(), String> {
            (self.0)()
        }
    }

    fn request(method: &str, target: &str, host: &str) -> Request {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Request::parse(head.as_bytes()).unwrap().unwrap().1
    }

    fn ask(method: &str, target: &str) -> Reply {
        wanted(&request(method, target, "localhost"), &[]).map_or_else(|reply| reply, |resource| resource.make(&Fake(|| Ok(()))))
    }

    #[test]
    fn paths_and_methods() {
        let found = "GET /metrics, HEAD /metrics, GET /metrics?x=1, GET /, GET /healthz, GET /readyz, GET /api/v1/status, \
                     HEAD /api/v1/workloads?x";
        let missing = "GET /api/v1/, GET /api/v1/workloads/eth0, GET /api, GET /metrics/, POST /nope, GET *";
        for (asked, status) in [(found, 200), (missing, 404), ("POST /metrics, DELETE /, get /, POST /api/v1/status", 405)] {
            for (method, target) in asked.split(", ").filter_map(|line| line.split_once(' ')) {
                let reply = ask(method, target);
                assert_eq!(reply.status, status, "{method} {target}");
                assert_eq!(reply.header("Allow"), (status == 405).then_some("GET, HEAD"));
            }
        }
    }

    #[test]
    fn metrics_can_be_compressed_and_short_answers_are_not() {
        let plain = ask("GET", "/metrics");
        let packed = plain.compressed().unwrap();
        assert_eq!((&**plain.body, plain.header("Content-Encoding")), (&b"up 1\n"[..], None));
        assert_eq!((&packed.body[..2], packed.header("Content-Encoding")), (&b"\x1f\x8b"[..], Some("gzip")));
        assert_eq!([&plain, &packed].map(|reply| reply.header("Vary")), [Some("Accept-Encoding"); 2]);
        assert!(ask("GET", "/readyz").compressed().is_none());
    }

    #[test]
    fn readiness_gives_its_reason_in_one_line() {
        let reply = Resource::Ready.make(&Fake(|| Err("no\nsync".into())));
        assert_eq!((reply.status, &**reply.body), (503, &b"no sync\n"[..]));
    }

    #[test]
    fn a_panic_costs_one_answer() {
        for resource in [Resource::Metrics, Resource::Ready, Resource::Api("/api/v1/status".into())] {
            assert_eq!(resource.make(&Fake(|| panic!("broken"))).status, 500);
        }
    }

    #[test]
    fn the_page_and_the_api_are_only_for_who_asks_by_an_own_name() {
        let names = ["node-1".to_owned(), "Accountant.Example.org".to_owned()];
        let status = |target: &str, host: &str, names: &[String]| {
            wanted(&request("GET", target, host), names).map_or_else(|reply| reply.status, |_| 200)
        };
        for host in ["evil.example", "localhost.evil.example", "node-1.evil.example", "127.0.0.1.evil.example", "node-2", "*"] {
            for target in ["/", "/page/app.js", "/api/v1/status"] {
                assert_eq!(status(target, host, &names), 421, "{target} of {host:?}");
            }
            assert_eq!(status("http://evil.example/api/v1/status", "localhost", &names), 421);
            for target in ["/metrics", "/healthz", "/readyz"] {
                assert_eq!(status(target, host, &names), 200, "{target} of {host:?}");
            }
            assert_eq!(status("/", host, &["*".to_owned()]), 200);
        }
    }

    #[test]
    fn the_page_may_use_its_own_files_and_nothing_else() {
        for (target, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/?x", "text/html; charset=utf-8"),
            ("/runbook", "text/html; charset=utf-8"),
            ("/page/app.js", "text/javascript; charset=utf-8"),
        ] {
            let reply = ask("GET", target);
            assert_eq!((reply.status, reply.header("Content-Type")), (200, Some(content_type)));
            let policy = reply.header("Content-Security-Policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        }
        assert_eq!(ask("GET", "/page/nothing.js").status, 404);
    }
}
