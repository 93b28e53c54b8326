//! Least privilege: what the running program, and a program that it runs, can still do. The tests try it, and do not only read the status.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command};

use calico_accountant::kernel::bpf::Counters;
use calico_accountant::os::privileges::{self, Kept};

use crate::program::{Program, command};
use crate::support::bpf::{Map, PER_CPU_HASH, own_mounts};
use crate::support::can_run;
use crate::support::certificates::Certificates;
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::kernel::knows_not;
use crate::support::netns::{Namespace, sh};
use crate::support::scrape::{one, scrape};

/// NET_ADMIN and NET_RAW, as `/proc/PID/status` writes them.
const NET_ADMIN_AND_NET_RAW: &str = "0000000000003000";
const NONE: &str = "0000000000000000";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The status files of all threads. A thread that served a connection may end meanwhile.
fn threads(program: &Program) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid().as_raw_nonzero())).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

#[test]
fn two_capabilities_are_left_in_every_thread() {
    if !can_run("two_capabilities_are_left_in_every_thread", is_root(), "root") {
        return;
    }
    let program = Program::start(command());
    scrape(program.port());
    let threads = threads(&program);
    assert!(threads.len() > 3, "{}", threads.len());
    for status in &threads {
        for (set, expected) in [
            ("CapPrm", NET_ADMIN_AND_NET_RAW),
            ("CapEff", NET_ADMIN_AND_NET_RAW),
            ("CapBnd", NET_ADMIN_AND_NET_RAW),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(field(status, set), expected, "{set} of {}", field(status, "Name"));
        }
        assert!(u64::from_str_radix(field(status, "CapInh"), 16).unwrap() & !0x3000 == 0);
    }
    assert!(!program.log().iter().any(|line| line.contains("could not be made")), "{:#?}", program.log());
}

/// A third capability remains if eBPF maps are to be read. A fourth one is effective only while Felix's folders are read, and no child has
/// it.
#[test]
fn the_ebpf_dataplane_takes_two_more() {
    if !can_run("the_ebpf_dataplane_takes_two_more", is_root(), "root") {
        return;
    }
    let mut command = command();
    command.env("BACKEND", "ebpf");
    let program = Program::start(command);
    scrape(program.port());
    for status in threads(&program) {
        assert_eq!((field(&status, "CapEff"), field(&status, "CapBnd")), ("0000008000003000", "0000008000003000"));
        assert_eq!((field(&status, "CapPrm"), field(&status, "CapAmb")), ("0000008000003004", NONE));
    }
}

/// Reading is all that is left of bpf(2): counters cannot be set, and maps cannot be made or pinned.
#[test]
fn maps_can_be_read_and_nothing_else() {
    let name = "maps_can_be_read_and_nothing_else";
    if !can_run(name, is_root(), "root") {
        return;
    }
    let Some(namespace) = Namespace::new(name) else { return };
    // Rights belong to a thread, as do the namespace and the mounts.
    let attempts = namespace.run(|| {
        own_mounts();
        let path = "/sys/fs/bpf/tc/globals/counters";
        let map = Map::pin(path, PER_CPU_HASH, 1);
        map.set(7, &[2], &[3]);
        privileges::at_start();
        privileges::for_good(Kept { files: false, ebpf: true });
        let mut read = Vec::new();
        Counters::open(Path::new(path)).unwrap().read(&mut |key, counts| read.push((key, counts[0]))).unwrap();
        assert_eq!(read, [(7, 5)]);
        let attempts: [&dyn Fn(); 3] =
            [&|| map.set(7, &[0], &[0]), &|| map.remove(7), &|| _ = Map::pin("/sys/fs/bpf/more", PER_CPU_HASH, 1)];
        attempts.map(|attempt| {
            let panic = catch_unwind(AssertUnwindSafe(attempt)).err();
            panic.map(|panic| panic.downcast_ref::<String>().unwrap().clone()).unwrap_or_default()
        })
    });
    for (attempt, command) in attempts.iter().zip([2, 3, 0]) {
        assert!(attempt.starts_with(&format!("bpf({command}): Operation not permitted")), "{attempt:?}");
    }
}

/// Before Linux 5.8, only SYS_ADMIN allows reading maps. It is kept for this dataplane alone.
#[test]
fn before_linux_5_8_maps_take_sys_admin() {
    const CAPBSET_READ: u64 = 23;
    const BPF: u64 = 39;
    if !can_run("before_linux_5_8_maps_take_sys_admin", is_root(), "root") {
        return;
    }
    let test = || {
        knows_not(libc::SYS_prctl, &[CAPBSET_READ, BPF]);
        for (backend, expected, permitted) in
            [("ebpf", "0000000000203000", "0000000000203004"), ("nft", NET_ADMIN_AND_NET_RAW, NET_ADMIN_AND_NET_RAW)]
        {
            let mut command = command();
            command.env("BACKEND", backend);
            let program = Program::start(command);
            scrape(program.port());
            for status in threads(&program) {
                assert_eq!((field(&status, "CapEff"), field(&status, "CapPrm")), (expected, permitted), "{backend}");
            }
            assert!(!program.log().iter().any(|line| line.contains("could not be made")), "{:#?}", program.log());
        }
    };
    // In a thread of its own, because the filter that hides a kernel feature cannot be removed.
    std::thread::spawn(test).join().unwrap();
}

/// If the program starts with fewer rights than it could use, it gains none and logs no complaint.
#[test]
fn who_has_little_gives_up_the_rest() {
    const GET_AUXV: u64 = 0x4155_5856;
    let setpriv = |options: &[&str]| {
        let mut started = Command::new("setpriv");
        started.args(options).arg(env!("CARGO_BIN_EXE_calico-accountant")).env_clear().env("NODENAME", "n");
        started.env("ETCD_ENDPOINTS", "http://127.0.0.1:1").env("METRICS_SERVER_PORT", "0").env("LISTEN_ADDRESS", "127.0.0.1");
        started
    };
    if !can_run("who_has_little_gives_up_the_rest", is_root() && Command::new("setpriv").arg("true").status().is_ok(), "root and setpriv") {
        return;
    }
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let container = ["--bounding-set", "-all,+net_admin", "--inh-caps", "-all"];
    let ambient = [&nobody[..], &["--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin"]].concat();
    let test = || {
        for (options, effective, ambient) in
            [(&nobody[..], NONE, NONE), (&container, "0000000000001000", NONE), (&ambient, "0000000000001000", "0000000000001000")]
        {
            let program = Program::start(setpriv(options));
            let samples = scrape(program.port());
            assert!(one(&samples, "process_open_fds", &[]) > 3.0, "what only its owner may look at");
            for status in threads(&program) {
                assert_eq!((field(&status, "CapEff"), field(&status, "CapAmb")), (effective, ambient), "{options:?}");
                assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
            }
            assert!(!program.log().iter().any(|line| line.contains("could not be made")), "{:#?}", program.log());
        }
    };
    test();
    // Before Linux 6.4, the auxiliary vector is read from a file, which only its owner may read.
    let before = || {
        knows_not(libc::SYS_prctl, &[GET_AUXV]);
        test();
    };
    std::thread::scope(|scope| scope.spawn(before).join().unwrap());
}

/// A program that the exporter runs. It prints one word for each thing that it tries, in the order of their names.
const ATTEMPTS: &str = r#"
PATH=/usr/sbin:/sbin:/usr/bin:/bin
EXPORTER=$PPID
sleep 100 </dev/null >/dev/null 2>&1 &
OWN=$!
# `call NAME EXPRESSION`: whether a system call, in Perl's words, is refused with EPERM.
call() { name=$1; shift; if perl -MSocket -e "\$! = 0; $*; exit(\$! == 1 ? 1 : 0)" >/dev/null 2>&1; then echo "$name:done" >&2; else echo "$name:refused" >&2; fi; }
option() { call "$1" "socket(S, AF_INET, SOCK_RAW, 255) or exit 0; setsockopt(S, $2, $3, 'x')"; }
try() { name=$1; shift; if sh -c "$*" >/dev/null 2>&1; then echo "$name:done" >&2; else echo "$name:refused" >&2; fi; }
try null 'echo x >/dev/null'
try make ': >"$FOLDER/new"'
try append 'echo x >>"$FOLDER/old"'
try truncate 'truncate -s 0 "$FOLDER/old"'
try remove 'rm "$FOLDER/old"'
try rename 'mv "$FOLDER/old" "$FOLDER/other"'
try folder 'mkdir "$FOLDER/folder"'
try link 'ln -s x "$FOLDER/link"'
try device 'mknod "$FOLDER/device" c 1 3'
try own 'cat "$FOLDER/old"'
try foreign 'cat "$FOLDER/foreign"'
try chown 'chown 65534 "$FOLDER/old"'
try chmod 'chmod 666 "$FOLDER/old"'
try times 'touch -d 2000-01-01 "$FOLDER/old"'
try attribute 'perl -e "my (\$p, \$n, \$v) = (q($FOLDER/old), q(user.x), q(y)); syscall($SETXATTR, \$p, \$n, \$v, 1, 0) == 0 or exit 1"'
try flags 'chattr +d "$FOLDER/old"'
try signal "kill -0 $STRANGER"
try signal-stop "kill -STOP $STRANGER"
try signal-exporter "kill -0 $EXPORTER"
try signal-child "kill -9 $OWN"
try limit "prlimit --pid $STRANGER --nofile=10:10"
try limit-exporter "prlimit --pid $EXPORTER --nofile=10:10"
try limit-own 'ulimit -n 10'
try affinity "taskset -p 1 $EXPORTER"
try renice "renice 5 $EXPORTER"
try exporter-memory 'dd if=/proc/'$EXPORTER'/mem bs=1 count=0'
try exporter-environment 'cat /proc/'$EXPORTER'/environ'
try exporter-files 'ls -l /proc/'$EXPORTER'/fd/'
try password 'env | grep -q hunter2'
try preload 'env | grep -q LD_PRELOAD'
try search-path 'env | grep -q ^PATH='
call abstract-socket "socket(S, AF_UNIX, SOCK_STREAM, 0) and connect(S, pack(q(Sa*), AF_UNIX, qq(\\0$ABSTRACT)))"
call local-socket "socket(S, AF_UNIX, SOCK_STREAM, 0) and connect(S, pack_sockaddr_un(q($FOLDER/socket)))"
call inet-socket "socket(S, AF_INET, SOCK_STREAM, 0)"
option arptables 0 96
option arptables-counters 0 97
option ebtables 0 128
option ebtables-counters 0 129
option ip6tables 41 64
option ipvs 0 1159
option ttl 0 2
call shared-memory "shmget(7, 4096, 0)"
call x32 "syscall(0x40000000 + $GETPID)"
try memory 'cat /proc/1/environ'
try nsenter 'nsenter --net=/proc/1/ns/net true'
try netns 'unshare --net true'
try userns 'unshare --user true'
try mount 'mount -t tmpfs none /mnt'
try chroot 'chroot / true'
try nice 'nice -n -5 true | grep -q . || [ "$(nice -n -5 nice)" = -5 ]'
try legacy 'iptables-legacy -A OUTPUT -m comment --comment intruder'
try legacy-read 'iptables-legacy -S OUTPUT'
try nft 'nft add table ip intruder'
exit 4
"#;

/// A process that has nothing to do with the exporter.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn what_a_program_that_it_runs_may_still_do() {
    let name = "what_a_program_that_it_runs_may_still_do";
    if !can_run(name, is_root(), "root") {
        return;
    }
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| {
        // This loads both into the kernel.
        sh("iptables-legacy -S OUTPUT; nft add table ip other");
        let folder = Scratch::new();
        for (file, owner) in [("old", 0), ("foreign", 65534)] {
            let path = folder.path().join(file);
            fs::write(&path, "x\n").unwrap();
            fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner), None).unwrap();
        }
        let _local = UnixListener::bind(folder.path().join("socket")).unwrap();
        let name = format!("calico-accountant-{}", std::process::id());
        let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let stranger = Killed(Command::new("sleep").arg("100").spawn().unwrap());
        let attempts = ATTEMPTS.replace("$FOLDER", &folder.path().display().to_string()).replace("$ABSTRACT", &name);
        let attempts = attempts.replace("$SETXATTR", &libc::SYS_setxattr.to_string()).replace("$GETPID", &libc::SYS_getpid.to_string());
        let fakes = Fakes::nft(&attempts.replace("$STRANGER", &stranger.0.id().to_string()));
        let mut command = command();
        command.env("PATH", fakes.path()).env("BACKEND", "nft").env("SOURCE", "save");
        command.env("ETCD_USERNAME", "u").env("ETCD_PASSWORD", "hunter2").env("LD_PRELOAD", "");
        let program = Program::start(command);
        let line = program.await_log("ended with exit code 4");
        let said = line.split("exit code 4: ").nth(1).unwrap().trim_end_matches(['"', '\n']);
        for (attempt, expected) in [
            ("null", "done"),
            ("make", "refused"),
            ("append", "refused"),
            ("truncate", "refused"),
            ("remove", "refused"),
            ("rename", "refused"),
            ("folder", "refused"),
            ("link", "refused"),
            ("device", "refused"),
            ("own", "done"),
            ("foreign", "refused"),
            ("chown", "refused"),
            ("chmod", "refused"),
            ("times", "refused"),
            ("attribute", "refused"),
            ("flags", "refused"),
            ("signal", "refused"),
            ("signal-stop", "refused"),
            // Both are in one Landlock domain, because the exporter can kill only programs of its own domain.
            ("signal-exporter", "done"),
            ("signal-child", "done"),
            ("limit", "refused"),
            ("limit-exporter", "refused"),
            ("limit-own", "done"),
            ("affinity", "refused"),
            ("renice", "refused"),
            ("exporter-memory", "refused"),
            ("exporter-environment", "refused"),
            ("exporter-files", "refused"),
            ("password", "refused"),
            ("preload", "refused"),
            ("search-path", "done"),
            ("abstract-socket", "refused"),
            ("local-socket", "refused"),
            ("inet-socket", "done"),
            ("arptables", "refused"),
            ("arptables-counters", "refused"),
            ("ebtables", "refused"),
            ("ebtables-counters", "refused"),
            ("ip6tables", "refused"),
            ("ipvs", "refused"),
            ("ttl", "done"),
            ("shared-memory", "refused"),
            // Other architectures have no such calls.
            ("x32", if cfg!(target_arch = "x86_64") { "refused" } else { "done" }),
            ("memory", "refused"),
            ("nsenter", "refused"),
            ("netns", "refused"),
            ("userns", "refused"),
            ("mount", "refused"),
            ("chroot", "refused"),
            ("nice", "refused"),
            ("legacy", "refused"),
            ("legacy-read", "done"),
            // NET_ADMIN allows it, and no filter can distinguish it from reading. SECURITY.md says so.
            ("nft", "done"),
        ] {
            assert!(said.split("; ").any(|said| said == format!("{attempt}:{expected}")), "{attempt} should be {expected}: {said}");
        }
        assert_eq!(fs::read_to_string(folder.path().join("old")).unwrap(), "x\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(fs::metadata(folder.path().join("old")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!sh("iptables-legacy -S OUTPUT").contains("intruder"));
    });
}

/// If the key were read with the rights at the start, it could not be read again when it is renewed.
#[test]
fn a_file_that_could_not_be_read_again_stops_the_start() {
    if !can_run("a_file_that_could_not_be_read_again_stops_the_start", is_root(), "root") {
        return;
    }
    let folder = Scratch::new();
    let path = folder.path().join("ca.pem");
    fs::copy(Certificates::new(None).ca(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(65534), None).unwrap();
    let mut command = command();
    command.env("ETCD_ENDPOINTS", "https://127.0.0.1:1").env("ETCD_CA_CERT_FILE", &path);
    let mut program = Program::start(command);
    assert_eq!(program.exit_code(), Some(2));
    let line = program.await_log("ETCD_CA_CERT_FILE");
    assert!(line.contains("ca.pem") && line.contains("Permission denied"), "{line}");
}

/// A port below 1024 needs one more capability, which is dropped when the program listens.
#[test]
fn a_port_below_1024_can_be_listened_on() {
    let name = "a_port_below_1024_can_be_listened_on";
    if !can_run(name, is_root(), "root") {
        return;
    }
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| {
        sh("echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let mut command = command();
        command.env("METRICS_SERVER_PORT", "80");
        let program = Program::start(command);
        assert_eq!(program.port(), 80);
        assert!(threads(&program).iter().all(|status| field(status, "CapEff") == NET_ADMIN_AND_NET_RAW));
    });
}

/// On a kernel without Landlock, and without prctl(2) for closing its memory and for adopting orphans, the program runs without them and
/// logs what matters.
#[test]
fn an_old_kernel_does_less() {
    const SET_DUMPABLE: u64 = 4;
    const SET_CHILD_SUBREAPER: u64 = 36;
    let test = || {
        // Its first call, which asks for the version.
        knows_not(libc::SYS_landlock_create_ruleset, &[0, 0, 1]);
        knows_not(libc::SYS_prctl, &[SET_DUMPABLE]);
        knows_not(libc::SYS_prctl, &[SET_CHILD_SUBREAPER]);
        let fakes = Fakes::tables(&fixture::text("captures/v3.28.5-legacy/t1/iptables-save.txt.gz"), "");
        let mut command = command();
        command.env("PATH", fakes.path()).env("BACKEND", "nft").env("SOURCE", "save");
        let program = Program::start(command);
        assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 1.0);
        let line = program.await_log("could not be made");
        assert!(line.contains("to lose access to files and other processes (this kernel has no Landlock)"), "{line}");
    };
    // In a thread of its own, because the filter that hides a kernel feature cannot be removed.
    std::thread::spawn(test).join().unwrap();
}

/// A credential plugin sees its configured environment, but no password of another datastore.
#[test]
fn a_credential_plugin_has_its_environment_and_no_password() {
    let scratch = Scratch::new();
    let plugin = scratch.path().join("plugin");
    let said =
        "#!/bin/sh\necho \"home=$HOME own=$OWN password=$ETCD_PASSWORD$CALICO_ETCD_PASSWORD token=$CALICO_K8SAPITOKEN\" >&2; exit 3\n";
    fs::write(&plugin, said).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let exec = serde_json::json!({"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never",
        "env": [{"name": "OWN", "value": "mine"}]});
    let kubeconfig = serde_json::json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {"exec": exec}}]});
    let path = scratch.path().join("config");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut command = command();
    command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", path).env("HOME", "/home");
    command.env("ETCD_PASSWORD", "hunter2").env("CALICO_ETCD_PASSWORD", "hunter3");
    let program = Program::start(command);
    let line = program.await_log("exit code 3");
    assert!(line.contains("home=/home own=mine password= token="), "{line}");
}
