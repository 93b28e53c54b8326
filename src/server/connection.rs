//! One connection: its requests one after the other, each in bounded time and memory.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use ureq_proto::http::{HeaderMap, Method, Request, Response, header};
use ureq_proto::server::state::{ProvideResponse, RecvRequest};
use ureq_proto::server::{RecvRequestResult, Reply as Exchange, SendResponseResult};

use super::connections::Seat;
use super::routes::{self, Ask, Reply};
use super::{Application, Limits, wire};

/// A longer head of a request is refused.
const LONGEST_HEAD: usize = 16 << 10;

/// What came in.
enum Asked {
    /// A request.
    For(Request<()>),
    /// Something that can only be refused, with what is said to it.
    Refused(Reply),
}

/// What came in, and the means to answer it; `None` at the end of the connection.
type Received = Option<(Asked, Exchange<ProvideResponse>)>;

/// Serves a connection to its end.
pub(super) fn serve(seat: &Seat, app: &dyn Application, limits: Limits) -> io::Result<()> {
    seat.socket.set_nodelay(true)?;
    let mut received = Vec::new();
    // The first request is expected at once, further ones in their time.
    let mut patience = limits.head;
    loop {
        seat.asks();
        let Some((asked, exchange)) = ask(seat, &mut received, patience, limits.head)? else { return Ok(()) };
        // Asked and gone: not worth a read of the kernel.
        seat.socket.take_error()?.map_or(Ok(()), Err)?;
        seat.waits();
        let reply = match asked {
            Asked::For(request) => answer(app, &request),
            Asked::Refused(reply) => reply,
        };
        seat.takes(&reply.body);
        if !give(&seat.socket, &reply, exchange, Instant::now() + limits.answer)? {
            return wire::farewell(&seat.socket);
        }
        patience = limits.idle;
    }
}

/// Waits for a request: `patience` for its first byte, `head` for all of it. What follows it stays in `received`, which never grows
/// beyond [`LONGEST_HEAD`].
fn ask(seat: &Seat, received: &mut Vec<u8>, patience: Duration, head: Duration) -> io::Result<Received> {
    let mut deadline = Instant::now() + if received.is_empty() { patience } else { head };
    loop {
        let mut exchange = Exchange::<RecvRequest>::new().map_err(io::Error::other)?;
        match exchange.try_request(received) {
            Ok((length, Some(request))) => {
                received.drain(..length);
                return accept(request, exchange);
            }
            Ok((_, None)) if received.len() >= LONGEST_HEAD => return refused(431, "the head of the request is too long"),
            Ok((_, None)) => {}
            Err(ureq_proto::Error::HttpParseTooManyHeaders) => return refused(431, "the request has too many headers"),
            Err(error) => return refused(400, &format!("not understood: {error}")),
        }
        let (had, mut piece) = (received.len(), [0; 4096]);
        let most = piece.len().min(LONGEST_HEAD - had);
        match wire::read(&seat.socket, &mut piece[..most], deadline) {
            Ok(0) => return Ok(None),
            Ok(read) => received.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error),
            Err(_) if had == 0 => return Ok(None),
            Err(_) => return refused(408, "the request took too long to arrive"),
        }
        if had == 0 {
            deadline = Instant::now() + head;
        }
    }
}

/// No request here has a body, and none is read: what is announced cannot matter. The connection ends with the answer then, as what
/// follows is no request.
fn accept(request: Request<()>, exchange: Exchange<RecvRequest>) -> io::Result<Received> {
    match exchange.proceed() {
        Some(RecvRequestResult::ProvideResponse(exchange)) if !announces_body(request.headers()) => {
            Ok(Some((Asked::For(request), exchange)))
        }
        _ if [Method::GET, Method::HEAD].contains(request.method()) => refused(413, "no request here has a body"),
        _ => Ok(Some((Asked::For(request), last_exchange()?))),
    }
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

fn refused(status: u16, why: &str) -> io::Result<Received> {
    Ok(Some((Asked::Refused(Reply::text(status, why)), last_exchange()?)))
}

/// The means to answer what is no request, or not to be read to its end: as if it were the plainest request, after which the
/// connection ends.
fn last_exchange() -> io::Result<Exchange<ProvideResponse>> {
    let mut exchange = Exchange::<RecvRequest>::new().map_err(io::Error::other)?;
    exchange.try_request(b"GET / HTTP/1.0\r\n\r\n").map_err(io::Error::other)?;
    match exchange.proceed() {
        Some(RecvRequestResult::ProvideResponse(exchange)) => Ok(exchange),
        _ => Err(io::Error::other("a plain request is not one")),
    }
}

/// A panic costs this request an error 500, not more.
fn answer(app: &dyn Application, request: &Request<()>) -> Reply {
    let accept_encoding = request.headers().get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let ask = Ask { method: request.method().as_str(), target, accept_encoding };
    catch_unwind(AssertUnwindSafe(|| routes::answer(app, &ask))).unwrap_or_else(|_| Reply::text(500, "this answer failed"))
}

/// Writes the answer; whether the connection may go on.
fn give(socket: &TcpStream, reply: &Reply, exchange: Exchange<ProvideResponse>, deadline: Instant) -> io::Result<bool> {
    let mut response = Response::builder().status(reply.status).header(header::CONTENT_LENGTH, reply.body.len());
    response = response.header(header::DATE, httpdate::fmt_http_date(SystemTime::now()));
    for (name, value) in &reply.headers {
        response = response.header(*name, *value);
    }
    let response = response.body(()).map_err(io::Error::other)?;
    let mut exchange = exchange.provide(response).map_err(io::Error::other)?;
    let mut head = [0; 1024];
    while !exchange.is_finished() {
        let length = exchange.write(&mut head).map_err(io::Error::other)?;
        wire::write(socket, &head[..length], deadline)?;
    }
    let exchange = match exchange.proceed() {
        SendResponseResult::Cleanup(exchange) => exchange,
        SendResponseResult::SendBody(mut exchange) => {
            wire::write(socket, &reply.body, deadline)?;
            exchange.consume_direct_write(reply.body.len()).map_err(io::Error::other)?;
            exchange.proceed()
        }
    };
    Ok(!exchange.must_close_connection())
}
