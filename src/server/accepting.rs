//! Accepts connections and gives each a thread. Nothing a client does ends this; only the system's saying no for minutes does.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::connections::Connections;
use super::{Application, Limits, connection};

/// So many failures in a row (about two minutes), and the process gives up: a restart may help.
const FAILURES: u32 = 120;

/// See [`super::Listener::serve`].
pub(super) fn serve(listener: &TcpListener, app: &Arc<dyn Application>, limits: Limits) -> io::Result<Infallible> {
    let limits = Limits { connections: limits.connections.min(affordable()), ..limits };
    let connections = Connections::new(limits);
    let mut failures = 0;
    loop {
        match listener.accept().and_then(|(socket, client)| start(socket, client, &connections, app, limits)) {
            Ok(()) => failures = 0,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                failures += 1;
                let level = if failures == 1 { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "accepting connections failed, trying again: {error}");
                if failures >= FAILURES {
                    return Err(error);
                }
                connections.make_room();
                thread::sleep(Duration::from_millis(100 * u64::from(failures.min(10))));
            }
        }
    }
}

/// Half of the descriptors that this process may have: what is shown needs some too.
fn affordable() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX)
}

fn start(
    socket: TcpStream,
    client: SocketAddr,
    connections: &Arc<Connections>,
    app: &Arc<dyn Application>,
    limits: Limits,
) -> io::Result<()> {
    let (seat, app) = (connections.admit(socket, client.ip()), Arc::clone(app));
    let serve = move || {
        if let Err(error) = connection::serve(&seat, &*app, limits) {
            log::debug!("a connection was broken off: {error}");
        }
    };
    thread::Builder::new().name("http".into()).spawn(serve).map(|_| ())
}

/// Errors of a connection that was over before it was accepted, see accept(2).
fn is_the_clients(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let over =
        [Errno::CONNABORTED, Errno::NETDOWN, Errno::PROTO, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::HOSTUNREACH, Errno::NETUNREACH];
    error.kind() == ErrorKind::Interrupted || errno.is_some_and(|errno| over.contains(&errno))
}
