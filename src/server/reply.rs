//! An answer: its status, headers and body. Pure.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;

/// The header of answers that are compressed on request.
const VARY: (&str, &str) = ("Vary", "Accept-Encoding");

/// An answer to `HEAD` has the body of `GET`, and the server does not send it.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub status: u16,
    headers: Vec<(&'static str, &'static str)>,
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

    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", Arc::new(format!("{text}\n").into_bytes()))
    }

    /// Creates an answer that is compressed for clients that accept it.
    pub fn packable(status: u16, content_type: &'static str, body: Arc<Vec<u8>>) -> Self {
        Self::new(status, content_type, body).with(VARY.0, VARY.1)
    }

    pub fn with(mut self, header: &'static str, value: &'static str) -> Self {
        self.headers.push((header, value));
        self
    }

    /// `connection` is the value of that header.
    pub fn head(&self, connection: Option<&'static str>) -> Vec<u8> {
        let (status, length, date) = (self.status, self.body.len(), httpdate::fmt_http_date(SystemTime::now()));
        let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Length: {length}\r\nDate: {date}\r\n", reason(status));
        for (name, value) in self.headers.iter().copied().chain(connection.map(|option| ("Connection", option))) {
            _ = write!(head, "{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    /// Compresses the body, if that is allowed. Prefers speed over size: metrics shrink to a tenth at any level.
    pub fn compressed(&self) -> Option<Self> {
        if !self.headers.contains(&VARY) {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.body.len() / 8), Compression::fast());
        encoder.write_all(&self.body).ok()?;
        let body = Arc::new(encoder.finish().ok()?);
        Some(Self { body, ..self.clone() }.with("Content-Encoding", "gzip"))
    }

    #[cfg(test)]
    pub fn header(&self, name: &str) -> Option<&'static str> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value)
    }
}

/// RFC 9110, 15. The crate still has the name of 413 from RFC 7231.
fn reason(status: u16) -> &'static str {
    let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    if status == 413 { "Content Too Large" } else { known.unwrap_or("Internal Server Error") }
}
