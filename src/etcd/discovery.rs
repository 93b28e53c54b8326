//! `ETCD_DISCOVERY_SRV`: finds etcd's endpoints from a DNS domain, as etcd's own client does (`client/pkg/srv/srv.go`).

use crate::datastore::dns::Srv;

const SERVICES: [(&str, &str); 2] = [("https", "_etcd-client-ssl._tcp"), ("http", "_etcd-client._tcp")];

/// Returns the endpoints of both services. `look_up` finds SRV records. An error is one line.
pub(super) fn endpoints(domain: &str, look_up: impl Fn(&str) -> Result<Vec<Srv>, String>) -> Result<Vec<String>, String> {
    let (mut endpoints, mut failures) = (Vec::new(), Vec::new());
    for (scheme, service) in SERVICES {
        match look_up(&format!("{service}.{domain}")) {
            Ok(records) => endpoints.extend(records.iter().map(|record| format!("{scheme}://{}:{}", record.host, record.port))),
            Err(error) => failures.push(error),
        }
    }
    if endpoints.is_empty() { Err(failures.join("; ")) } else { Ok(endpoints) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_is_enough() {
        let found = |with_tls: bool, plain: bool| {
            endpoints("x.org", |name| {
                let host = match name {
                    "_etcd-client-ssl._tcp.x.org" if with_tls => "tls.x.org",
                    "_etcd-client._tcp.x.org" if plain => "plain.x.org",
                    _ => return Err(format!("nothing for {name}")),
                };
                Ok(vec![Srv { priority: 0, host: host.into(), port: 2379 }])
            })
        };
        assert_eq!(found(true, false).unwrap(), ["https://tls.x.org:2379"]);
        assert_eq!(found(false, true).unwrap(), ["http://plain.x.org:2379"]);
        assert_eq!(found(true, true).unwrap(), ["https://tls.x.org:2379", "http://plain.x.org:2379"]);
        assert_eq!(found(false, false).unwrap_err(), "nothing for _etcd-client-ssl._tcp.x.org; nothing for _etcd-client._tcp.x.org");
    }
}
