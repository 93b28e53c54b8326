//! Targets for input from the network and from files.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use calico_accountant::config::{self, World};
use calico_accountant::dataplane::saved;
use calico_accountant::datastore::follow::Ended;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::ebpf::dump;
use calico_accountant::felix::Direction;
use calico_accountant::report::Report;
use calico_accountant::ruleset::Family;
use calico_accountant::server::{Application, Limits, Listener};
use calico_accountant::{etcd, kubernetes, nftables};

const NODE: &str = "node1";

/// Returns its bytes in pieces of one length.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(buffer.len());
        self.0.read(&mut buffer[..length])
    }
}

/// Reads a stream in pieces and as a whole, which must give the same inventory. The first byte is the length of the pieces.
fn in_any_pieces<T: PartialEq + std::fmt::Debug>(data: &[u8], read: impl Fn(&[u8], usize, Arc<Inventory>) -> T) {
    let Some((&length, stream)) = data.split_first() else { return };
    let [whole, pieces] = [stream.len().max(1), usize::from(length) + 1].map(|length| {
        let inventory = Arc::new(Inventory::new());
        let result = read(stream, length, Arc::clone(&inventory));
        (result, inventory.workloads(), inventory.skipped_objects())
    });
    assert_eq!(whole, pieces);
}

/// The stream of a watch of etcd's gateway.
pub fn etcd(data: &[u8]) {
    in_any_pieces(data, |stream, length, inventory| etcd::replay(Pieces(stream, length), NODE, inventory));
}

/// An API server's list of pods, and after a zero byte the stream of the watch.
pub fn kubernetes(data: &[u8]) {
    in_any_pieces(data, |stream, length, inventory| {
        let (list, watch) = stream.split_at(stream.iter().position(|&byte| byte == 0).unwrap_or(stream.len()));
        let watch = watch.get(1..).unwrap_or_default();
        let ended = kubernetes::replay(Pieces(list, length), Pieces(watch, length), NODE, inventory);
        ended.map_err(|error| error.to_string()).map(|ended: Ended| ended)
    });
}

/// One or more kubeconfigs, separated by zero bytes. An error must be one line, for the log.
pub fn kubeconfig(data: &[u8]) {
    let files: Vec<_> = data.split(|&byte| byte == 0).collect();
    let names: Vec<_> = (0..files.len()).map(|n| format!("/{n}")).collect();
    let variable = |name: &str| {
        let value = match name {
            "DATASTORE_TYPE" => "kubernetes",
            "KUBECONFIG" => &names.join(":"),
            "NODENAME" => NODE,
            _ => return None,
        };
        Some(OsString::from(value))
    };
    let read_file = |path: &Path| {
        let number = path.to_str().and_then(|path| path.strip_prefix('/')?.parse::<usize>().ok());
        number.and_then(|number| files.get(number)).map(|file| file.to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    if let Err(error) = config::parse([], &World { variable: &variable, read_file: &read_file }) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// The output of `nft -j list ruleset`.
pub fn nft_json(data: &[u8]) {
    if let Ok(tables) = nftables::parse(data) {
        super::understand(&tables);
    }
}

/// A saved file of tables.
pub fn saved(data: &[u8]) {
    match saved::moment(&[("file".to_owned(), data.to_vec())]) {
        Ok(tables) => super::understand(&tables),
        Err(error) => assert!(error.starts_with("file: ") && error.len() > 10),
    }
}

/// One of Felix's files about an eBPF program.
pub fn bpf_dump(data: &[u8]) {
    for (direction, family) in [(Direction::Ingress, Family::V4), (Direction::Egress, Family::V6)] {
        if let Err(error) = dump::parse(data, dump::Name { interface: "cali0", direction, family, is_xdp: false }) {
            assert!(!error.is_empty());
        }
    }
}

struct Empty;

impl Application for Empty {
    fn metrics(&self) -> Arc<Vec<u8>> {
        Arc::new(b"up 1\n".to_vec())
    }

    fn report(&self) -> Arc<Report> {
        Arc::default()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Returns the address of a server that runs until the process ends.
fn server() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = Listener::bind(Ipv4Addr::LOCALHOST.into(), 0, Limits::default()).expect("a port");
        let address = listener.address().expect("its address");
        thread::spawn(move || listener.serve(Arc::new(Empty)));
        address
    })
}

/// A client's data before it closes its side. The server must answer in HTTP or not at all, and soon close its own side.
pub fn http(data: &[u8]) {
    let mut client = TcpStream::connect(server()).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    // The server may have closed its side already.
    _ = client.write_all(data);
    _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer)),
    }
}
