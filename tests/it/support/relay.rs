//! A relay like those before API servers in many clusters. It ends TLS, forwards requests, and can answer them itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

/// Forwards requests to a server, and does not use TLS itself.
pub struct Relay {
    pub port: u16,
    own: Arc<Mutex<Option<String>>>,
}

impl Relay {
    /// Creates a relay to this `https://` URL.
    pub fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = Arc::new(Mutex::new(None));
        let answers = Arc::clone(&own);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, own) = (server.clone(), Arc::clone(&answers));
                // An error only affects this connection.
                thread::spawn(move || serve(&client, &server, &own));
            }
        });
        Relay { port, own }
    }

    /// Answers all requests itself: status and reason, further headers with their line ends, and a text.
    pub fn answer(&self, status: &str, headers: &str, text: &str) {
        let length = text.len();
        *self.own.lock().unwrap() = Some(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{text}"));
    }

    /// Forwards all requests again.
    pub fn pass(&self) {
        *self.own.lock().unwrap() = None;
    }
}

fn serve(mut client: &TcpStream, server: &str, own: &Mutex<Option<String>>) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let tls = TlsConfig::builder().disable_verification(true);
    let tls = tls.unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider())).build();
    let agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).build().new_agent();
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    loop {
        let target = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        let headers: Vec<_> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        if let Some(answer) = own.lock().unwrap().clone() {
            client.write_all(answer.as_bytes()).ok()?;
            continue;
        }
        let mut request = agent.get(format!("{server}{target}"));
        for (name, value) in headers.iter().filter_map(|line| line.split_once(": ")) {
            if ["authorization", "accept"].contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        pass_on(client, request.call().ok()?)?;
    }
}

/// Forwards an answer in chunks as they arrive.
fn pass_on(mut client: &TcpStream, answer: ureq::http::Response<Body>) -> Option<()> {
    write!(client, "HTTP/1.1 {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", answer.status()).ok()?;
    let (mut body, mut buffer) = (answer.into_body().into_reader(), vec![0; 64 << 10]);
    loop {
        let length = body.read(&mut buffer).ok()?;
        client.write_all(&[format!("{length:x}\r\n").as_bytes(), &buffer[..length], b"\r\n"].concat()).ok()?;
        if length == 0 {
            return Some(());
        }
    }
}
