//! etcd found by DNS. The test serves DNS itself, in a network namespace, at the address that the system's configuration names.

use std::net::{IpAddr, UdpSocket};
use std::thread;

use calico_accountant::config::EtcdConfig;
use simple_dns::rdata::{RData, SRV};
use simple_dns::{CLASS, Name, Packet, RCODE, ResourceRecord};

use super::{app_of, config, endpoint, start, synced, troubled};
use crate::support::etcd::Etcd;
use crate::support::netns::{Namespace, sh};

/// The name server that a resolver asks first.
fn name_server() -> IpAddr {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut addresses = text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    addresses.next().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// Serves one SRV record. No other name exists.
fn serve(socket: UdpSocket, name: &'static str, port: u16) {
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut reply = Packet::parse(&buffer[..length]).unwrap().into_reply();
            let asked = reply.questions[0].qname.clone();
            match asked.to_string() == name {
                true => {
                    let srv = SRV { priority: 0, weight: 0, port, target: Name::new("localhost").unwrap() };
                    reply.answers.push(ResourceRecord::new(asked, CLASS::IN, 10, RData::SRV(srv)));
                }
                false => *reply.rcode_mut() = RCODE::NameError,
            }
            socket.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
        }
    });
}

#[test]
fn srv_records_lead_to_etcd() {
    let Some(namespace) = Namespace::new("etcd found by DNS") else { return };
    namespace.run(|| {
        let Some(etcd) = Etcd::plain() else { return };
        let server = name_server();
        if !server.is_loopback() {
            sh(&format!("ip addr add {server} dev lo"));
        }
        serve(UdpSocket::bind((server, 53)).unwrap(), "_etcd-client._tcp.etcd.test", etcd.port);
        etcd.put(&endpoint("node-1", "shop", "web-1", "web"));
        let discovery = |domain: &str| EtcdConfig { endpoints: Vec::new(), discovery: Some(domain.into()), ..config("") };
        let inventory = start(discovery("etcd.test"));
        synced(&inventory);
        assert_eq!(app_of(&inventory, "web-1").as_deref(), Some("web"));

        let inventory = start(discovery("other.test"));
        troubled(&inventory, &["no SRV records for _etcd-client-ssl._tcp.other.test", "_etcd-client._tcp.other.test"]);
    });
}
