//! A TCP proxy that counts what it forwards, and fails like networks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::etcd::free_port;

/// Forwards connections from one port to another.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    cut: AtomicBool,
    received: AtomicU64,
    asked: AtomicU64,
    open: AtomicUsize,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    frozen: Arc<AtomicBool>,
}

impl Proxy {
    /// Creates a proxy to `target` on this host.
    pub fn to(target: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let state = State {
            target,
            cut: AtomicBool::new(false),
            received: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            connections: Mutex::default(),
        };
        let state = Arc::new(state);
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.connect(client);
            }
        });
        Proxy { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the number of bytes from the server to clients so far.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that clients have opened, or tried to, plus that of requests on them, unless they are encrypted.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.server.shutdown(Shutdown::Both);
        }
    }

    /// Accepts new connections again.
    pub fn restore(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Leaves current connections open, but forwards nothing any more, like a firewall that has lost its state.
    pub fn freeze(&self) {
        for connection in self.state.connections.lock().unwrap().iter() {
            connection.frozen.store(true, Ordering::SeqCst);
        }
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        // As ureq and etcd do. Otherwise each request would wait 40 ms for an acknowledgement.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let frozen = Arc::new(AtomicBool::new(false));
        let copy = |stream: &TcpStream| stream.try_clone().unwrap();
        let connection = Connection { client: copy(&client), server: copy(&server), frozen: Arc::clone(&frozen) };
        self.connections.lock().unwrap().push(connection);
        self.pass(copy(&client), copy(&server), Arc::clone(&frozen), false);
        self.pass(server, client, frozen, true);
    }

    fn pass(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream, frozen: Arc<AtomicBool>, count: bool) {
        let state = Arc::clone(self);
        state.open.fetch_add(usize::from(count), Ordering::SeqCst);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if !count && [&b"POST "[..], b"GET "].iter().any(|method| buffer[..n].starts_with(method)) {
                    state.asked.fetch_add(1, Ordering::Relaxed);
                }
                if frozen.load(Ordering::SeqCst) {
                    continue;
                }
                if count {
                    state.received.fetch_add(n as u64, Ordering::Relaxed);
                }
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            state.open.fetch_sub(usize::from(count), Ordering::SeqCst);
            if !frozen.load(Ordering::SeqCst) {
                let _ = to.shutdown(Shutdown::Both);
            }
        });
    }
}
