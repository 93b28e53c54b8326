//! Looks up SRV records at the system's name servers and returns hosts and ports. Touches `/etc/resolv.conf` and the network. Time is
//! bounded, and there is at most one query at a time.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// The maximum number of name servers and of search domains, as in glibc.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Lower ones are tried first.
    pub priority: u16,
    /// The host's name without the final dot.
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    limit: Duration,
}

impl Resolver {
    /// Reads `/etc/resolv.conf`. Without that file, uses this host.
    pub fn of_system() -> Self {
        Self::from_text(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn from_text(text: &str) -> Self {
        let (mut servers, mut search) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()).map(|ip| SocketAddr::from((ip, 53))))
                }
                Some("search" | "domain") => search = words.take(MOST_DOMAINS).map(|word| word.trim_end_matches('.').to_owned()).collect(),
                _ => {}
            }
        }
        servers.truncate(MOST_SERVERS);
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        Resolver { servers, search, limit: ANSWER_LIMIT }
    }

    /// Returns the SRV records of a name, the most preferred first. If the name itself has none, tries the search domains.
    pub fn srv(&self, name: &str) -> Result<Vec<Srv>, String> {
        let names = std::iter::once(name.to_owned()).chain(self.search.iter().map(|domain| format!("{name}.{domain}")));
        for name in names {
            let mut records = self.ask(&name)?;
            if !records.is_empty() {
                records.sort();
                return Ok(records);
            }
        }
        Err(format!("there are no SRV records for {name}"))
    }

    /// Asks one server after the other, twice, because a datagram may get lost.
    fn ask(&self, name: &str) -> Result<Vec<Srv>, String> {
        let mut failure = String::new();
        for server in self.servers.iter().chain(&self.servers) {
            match self.ask_server(*server, name) {
                Ok(records) => return Ok(records),
                Err(error) => {
                    failure = format!("asking {server} for the SRV records of {name} failed: {}", self.explain(&error));
                }
            }
        }
        Err(failure)
    }

    fn explain(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {:.1} s", self.limit.as_secs_f64()),
            _ => error.to_string(),
        }
    }

    fn ask_server(&self, server: SocketAddr, name: &str) -> io::Result<Vec<Srv>> {
        // Against forged answers the protocol has 16 random bits. The socket's port adds as many.
        let id = RandomState::new().build_hasher().finish() as u16;
        let question = question(id, name)?;
        let socket = UdpSocket::bind((if server.is_ipv6() { "::" } else { "0.0.0.0" }, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(self.limit))?;
        socket.send(&question)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer)?;
        match answer(&buffer[..length], id, name)? {
            Some(records) => Ok(records),
            None => self.ask_over_tcp(server, &question, id, name),
        }
    }

    fn ask_over_tcp(&self, server: SocketAddr, question: &[u8], id: u16, name: &str) -> io::Result<Vec<Srv>> {
        let mut stream = TcpStream::connect_timeout(&server, self.limit)?;
        stream.set_read_timeout(Some(self.limit))?;
        stream.set_write_timeout(Some(self.limit))?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes();
        stream.write_all(&[&length, question].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut reply)?;
        answer(&reply, id, name)?.ok_or_else(|| io::Error::other("an answer that is cut short"))
    }
}

fn question(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

fn answer(bytes: &[u8], id: u16, name: &str) -> io::Result<Option<Vec<Srv>>> {
    let packet = Packet::parse(bytes).map_err(|error| io::Error::other(format!("an answer that cannot be read: {error}")))?;
    let asked = packet.questions.first().map(|question| question.qname.to_string());
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || asked.is_none_or(|asked| !asked.eq_ignore_ascii_case(name)) {
        return Err(io::Error::other("an answer to another question"));
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => return Err(io::Error::other(format!("the server answers {code:?}"))),
    }
    let srv = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(srv) => Some(Srv { priority: srv.priority, host: host(&srv.target)?, port: srv.port }),
        _ => None,
    });
    Ok(Some(srv.collect()))
}

/// Returns a host name. Returns `None` for the root, which means that there is no such service, and for an invalid host name.
fn host(name: &Name<'_>) -> Option<String> {
    let text = name.to_string().trim_end_matches('.').to_owned();
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    good.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn resolv_conf() {
        let text = "# x\nnameserver 10.0.0.10\nnameserver fd00::a\nnameserver bad\nsearch a.org. b.org\noptions ndots:5\n";
        let resolver = Resolver::from_text(text);
        assert_eq!(resolver.servers, ["10.0.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        assert_eq!(resolver.search, ["a.org", "b.org"]);
        assert_eq!(Resolver::from_text("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    fn reply(question: &[u8], name: &str, records: &[(u16, &str, u16)], edit: &dyn Fn(&mut Packet)) -> Vec<u8> {
        let question = Packet::parse(question).unwrap();
        let mut packet = question.clone().into_reply();
        if question.questions[0].qname.to_string() != name {
            *packet.rcode_mut() = RCODE::NameError;
            return packet.build_bytes_vec().unwrap();
        }
        for (priority, target, port) in records {
            let target = Name::new(target).unwrap();
            let srv = SRV { priority: *priority, weight: 0, port: *port, target };
            packet.answers.push(ResourceRecord::new(question.questions[0].qname.clone(), CLASS::IN, 10, RData::SRV(srv)));
        }
        edit(&mut packet);
        packet.build_bytes_vec().unwrap()
    }

    fn resolver(name: &'static str, records: &'static [(u16, &'static str, u16)], edit: fn(&mut Packet)) -> Resolver {
        // The same port must also be free for TCP.
        let (server, socket, tcp) = std::iter::repeat_with(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let server = socket.local_addr().unwrap();
            TcpListener::bind(server).ok().map(|tcp| (server, socket, tcp))
        })
        .find_map(|bound| bound)
        .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&reply(&buffer[..length], name, records, &edit), from).unwrap();
            }
        });
        thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut question).unwrap();
                let reply = reply(&question, name, records, &|_| ());
                stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat()).unwrap();
            }
        });
        Resolver { servers: vec![server], search: Vec::new(), limit: Duration::from_secs(10) }
    }

    const NAME: &str = "_etcd-client._tcp.x.org";
    const RECORDS: &[(u16, &str, u16)] = &[(20, "b.x.org", 2380), (10, "a.x.org", 2379), (10, ".", 1), (10, "a b", 1)];

    #[test]
    fn records_come_in_order_from_search_domains_too_and_over_tcp_what_does_not_fit() {
        let known = resolver(NAME, RECORDS, |_| ());
        let search = Resolver { search: vec!["y.org".into(), "org".into()], ..known.clone() };
        let cut = resolver(NAME, RECORDS, |packet| {
            packet.answers.clear();
            packet.set_flags(PacketFlag::TRUNCATION);
        });
        let srv = |priority, host: &str, port| Srv { priority, host: host.into(), port };
        for (resolver, name) in [(&known, NAME), (&search, "_etcd-client._tcp.x"), (&cut, NAME)] {
            assert_eq!(resolver.srv(name).unwrap(), [srv(10, "a.x.org", 2379), srv(20, "b.x.org", 2380)]);
        }
        assert_eq!(known.srv("_other._tcp.x.org").unwrap_err(), "there are no SRV records for _other._tcp.x.org");
    }

    #[test]
    fn wrong_answers_and_no_answers() {
        let failed = |edit| resolver(NAME, RECORDS, edit).srv(NAME).unwrap_err();
        assert!(failed(|packet| packet.set_id(packet.id().wrapping_add(1))).ends_with("failed: an answer to another question"));
        assert!(failed(|packet| packet.questions.clear()).ends_with("failed: an answer to another question"));
        assert!(failed(|packet| *packet.rcode_mut() = RCODE::ServerFailure).ends_with("failed: the server answers ServerFailure"));
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let resolver = Resolver { servers, search: Vec::new(), limit: Duration::from_millis(100) };
        assert!(resolver.srv(NAME).unwrap_err().ends_with("failed: no answer within 0.1 s"));
    }

    #[test]
    fn garbage_is_an_error() {
        let good = reply(&question(1, NAME).unwrap(), NAME, RECORDS, &|_| ());
        for length in 0..good.len() {
            assert!(answer(&good[..length], 1, NAME).is_err(), "{length}");
        }
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << bit;
                _ = answer(&bytes, 1, NAME);
            }
        }
    }
}
