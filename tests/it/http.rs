//! A minimal HTTP client that shows exactly what the server sends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header. `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Connects, with a timeout for reads of half a minute. That is longer than any answer may take, so that tests which measure this see it.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Sends one request on a new connection.
pub fn request(port: u16, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    request_on(&mut connect(port)?, method, path, headers)
}

pub fn get(port: u16, path: &str) -> io::Result<Answer> {
    request(port, "GET", path, "")
}

/// Sends one request on this connection, which remains open. `headers` are whole lines, each with its `\r\n`.
pub fn request_on(stream: &mut TcpStream, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes())?;
    answer(stream, method == "HEAD")
}

/// Reads one answer.
pub fn answer(stream: &TcpStream, is_head: bool) -> io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    };
    let status = line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if !is_head {
        match answer.header("content-length") {
            Some(length) => {
                answer.body = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut answer.body)?;
            }
            None => drop(reader.read_to_end(&mut answer.body)?),
        }
    }
    Ok(answer)
}
