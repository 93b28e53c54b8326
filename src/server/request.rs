//! Parses the head of a request with httparse. Pure.

use http::Uri;
use http::uri::Authority;
use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::reply::Reply;

/// In bytes.
pub(super) const LONGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 100;

/// The parts of a request that the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// The answer is sent without its body.
    pub is_head: bool,
    /// The method is `GET` or `HEAD`. No others are allowed.
    pub may_get: bool,
    pub path: String,
    pub query: Option<String>,
    /// The server's name as the client knows it, without the port. An IPv6 address is in brackets.
    pub host: Option<String>,
    pub gzip: bool,
    /// A body follows. It is never read.
    pub has_body: bool,
    pub keep_alive: bool,
    /// HTTP/1.0, whose clients must be told that the connection stays open.
    pub old: bool,
}

impl Request {
    /// Returns the first request and the length of its head, or `None` if it is incomplete. After an error's answer the connection ends.
    pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Self)>, Reply> {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(bytes) {
            Ok(Status::Complete(length)) if length <= LONGEST_HEAD => Self::of(&head).map(|request| Some((length, request))),
            Ok(Status::Partial) if bytes.len() < LONGEST_HEAD => Ok(None),
            Ok(_) => Err(Reply::text(431, "the head of the request is too long")),
            Err(Error::TooManyHeaders) => Err(Reply::text(431, "the request has too many headers")),
            Err(error) => Err(bad(&error.to_string())),
        }
    }

    fn of(head: &httparse::Request<'_, '_>) -> Result<Self, Reply> {
        let (method, old) = (head.method.unwrap_or_default(), head.version == Some(0));
        let target: Uri = head.path.unwrap_or_default().parse().map_err(|_| bad("the target is not a URI"))?;
        let host = match values(head.headers, "host").collect::<Vec<_>>()[..] {
            [] if old => None,
            [host] => Some(host.parse::<Authority>().map_err(|_| bad("Host is not a host name"))?),
            _ => return Err(bad("there must be one Host")),
        };
        let lengths: Vec<&str> = values(head.headers, "content-length").collect();
        if lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(bad("Content-Length is not a number"));
        }
        let says = |option: &str| {
            values(head.headers, "connection").flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(option))
        };
        let has_body = lengths.iter().any(|length| *length != "0") || values(head.headers, "transfer-encoding").next().is_some();
        Ok(Self {
            is_head: method == "HEAD",
            may_get: ["GET", "HEAD"].contains(&method),
            path: target.path().to_owned(),
            query: target.query().map(str::to_owned),
            // The target's own authority has priority (RFC 9112, 3.2.2).
            host: target.authority().or(host.as_ref()).map(|authority| authority.host().to_owned()),
            gzip: accepts_gzip(&values(head.headers, "accept-encoding").collect::<Vec<_>>()),
            has_body,
            // What follows an unread body is not a request.
            keep_alive: !has_body && !says("close") && (!old || says("keep-alive")),
            old,
        })
    }
}

fn bad(why: &str) -> Reply {
    Reply::text(400, &format!("not understood: {why}"))
}

/// Returns the values of a header. A value that is not text is irrelevant here.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("?"))
}

/// Reports whether gzip is acceptable (RFC 9110, 12.5.3): listed by name, or covered by `*`, and without a weight of 0.
fn accepts_gzip(values: &[&str]) -> bool {
    let weight_of = |wanted: &[&str]| {
        let codings = values.iter().flat_map(|value| value.split(','));
        codings.map(coding).find(|(name, _)| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))).map(|(_, weight)| weight)
    };
    weight_of(&["gzip", "x-gzip"]).or_else(|| weight_of(&["*"])).is_some_and(|weight| weight > 0.0)
}

/// Splits `gzip;q=0.5` into name and weight. An invalid weight counts as 0, so that nothing unwanted is sent.
fn coding(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request, u16> {
        Request::parse(head.as_bytes()).map(|request| request.unwrap().1).map_err(|reply| reply.status)
    }

    #[test]
    fn accept_encoding() {
        for values in [&["gzip"][..], &["GZIP"], &["deflate, gzip;q=1.0, *;q=0.5"], &["*"], &["br", "gzip"]] {
            assert!(accepts_gzip(values), "{values:?}");
        }
        let refused = ["gzip;q=0", "gzip; q=0.000", "gzip;q=0, *", "*;q=0", "identity", "gzip;q=x", "gzipped", ""];
        for values in refused.map(|value| vec![value]).into_iter().chain([vec![]]) {
            assert!(!accepts_gzip(&values), "{values:?}");
        }
    }

    #[test]
    fn the_host_is_named_once() {
        for (head, host) in [
            ("GET / HTTP/1.1\r\nHost: node-1:9009\r\n\r\n", Ok(Some("node-1"))),
            ("GET / HTTP/1.1\r\nhost:[fd00::1]:9009\r\n\r\n", Ok(Some("[fd00::1]"))),
            ("GET http://a:80/x HTTP/1.1\r\nHost: b\r\n\r\n", Ok(Some("a"))),
            ("GET / HTTP/1.0\r\n\r\n", Ok(None)),
            ("GET / HTTP/1.1\r\n\r\n", Err(400)),
            ("GET http://a/ HTTP/1.1\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Err(400)),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", Err(400)),
        ] {
            assert_eq!(parse(head).map(|request| request.host), host.map(|host| host.map(str::to_owned)), "{head:?}");
        }
    }

    #[test]
    fn connections_go_on_as_each_version_has_it() {
        for (version, headers, keep_alive) in [
            (1, "", true),
            (1, "Connection: Close\r\n", false),
            (1, "Connection: upgrade, close\r\n", false),
            (1, "Content-Length: 0\r\n", true),
            (1, "Content-Length: 1\r\n", false),
            (1, "Transfer-Encoding: chunked\r\n", false),
            (0, "", false),
            (0, "Connection: Keep-Alive\r\n", true),
            (0, "Connection: keep-alive\r\nConnection: close\r\n", false),
        ] {
            let request = parse(&format!("GET / HTTP/1.{version}\r\nHost: a\r\n{headers}\r\n"));
            assert_eq!(request.map(|request| request.keep_alive), Ok(keep_alive), "{version} {headers:?}");
        }
    }
}
