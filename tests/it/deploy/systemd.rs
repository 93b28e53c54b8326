//! systemd's own checks of the unit, and the program as a service that says when it is ready.

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::http;
use crate::program::{PATIENCE, Program, command};
use crate::support::can_run;
use crate::support::etcd::Scratch;

#[test]
fn the_service_manager_hears_of_start_and_end() {
    let scratch = Scratch::new();
    let path = scratch.path().join("notify");
    says_start_and_end(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
    // An abstract socket instead of a path, as some containers have it.
    let name = format!("calico-accountant-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    says_start_and_end(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
}

fn says_start_and_end(socket: &UnixDatagram, name: &str) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command();
    command.env("NOTIFY_SOCKET", name).env("DATASTORE_TYPE", "none");
    let mut program = Program::start(command);
    let said = || {
        let mut datagram = [0; 64];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    assert_eq!(said(), "READY=1\n");
    // After this message the program serves.
    TcpStream::connect(("127.0.0.1", program.port())).unwrap();
    assert_eq!(http::get(program.port(), "/healthz").unwrap().status, 200);
    kill_process(program.pid(), Signal::TERM).unwrap();
    assert_eq!(said(), "STOPPING=1\n");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_service_manager_that_is_gone_is_no_reason_to_stop() {
    let mut command = command();
    command.env("NOTIFY_SOCKET", "/nonexistent/notify").env("DATASTORE_TYPE", "none");
    let program = Program::start(command);
    assert_eq!(http::get(program.port(), "/healthz").unwrap().status, 200);
    let line = program.await_log("service manager");
    assert!(line.contains("level=warn") && line.contains("NOTIFY_SOCKET"), "{line}");
}

const UNIT: &str = "deploy/systemd/calico-accountant.service";

/// Runs systemd-analyze on the unit. If it is not installed, prints that and returns `None`.
fn analyze(args: &[&str], unit: &std::path::Path) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze").args(args).arg(unit).env("SYSTEMD_PAGER", "").output();
    if !can_run("systemd-analyze", output.is_ok(), "systemd") {
        return None;
    }
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The unit as it is installed, except for the program's path.
#[test]
fn systemd_accepts_the_unit() {
    let (installed, scratch) = ("/usr/local/bin/calico-accountant", Scratch::new());
    let text = super::text(UNIT);
    assert_eq!(text.matches(&format!("\nExecStart={installed}\n")).count(), 1);
    let unit = scratch.path().join("calico-accountant.service");
    std::fs::write(&unit, text.replace(installed, env!("CARGO_BIN_EXE_calico-accountant"))).unwrap();
    let Some(verdict) = analyze(&["verify", "--man=no"], &unit) else { return };
    assert_eq!(verdict, (true, String::new()));
}

#[test]
fn the_unit_gives_away_little() {
    let Some((kept, report)) = analyze(&["security", "--offline=true", "--threshold=30"], &super::path(UNIT)) else { return };
    assert!(kept, "{report}");
}
