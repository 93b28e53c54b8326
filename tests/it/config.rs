//! How the command line and the environment affect the program as a whole. Unit tests cover the rules in detail.

use crate::program::command;
use crate::support::fakes::Fakes;

/// Runs the program to its end. Returns exit code, standard output and standard error.
fn run(variables: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String, String) {
    let output = command().envs(variables.iter().copied()).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_fits_and_names_every_setting() {
    let (code, help, errors) = run(&[("METRICS_SERVER_PORT", "wrong, but not looked at")], &["--help"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for name in ["NODENAME", "--minimum-counter <", "CALICO_ETCD_ENDPOINTS", "ETCD_PASSWORD", "--xtables-lock-wait <", "-logtostderr"] {
        assert!(help.contains(name), "{name}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn version_is_one_line() {
    let (code, version, errors) = run(&[], &["--version"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(version, format!("calico-accountant {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_into_a_closed_pipe_is_no_panic() {
    let script = format!("'{}' --help | head -1", env!("CARGO_BIN_EXE_calico-accountant"));
    let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn every_mistake_is_one_line_that_names_it_and_exit_code_2() {
    let variables: &[(&str, &str)] = &[
        ("METRICS_SERVER_PORT", "99999"),
        ("MINIMUM_COUNTER", "some"),
        ("LISTEN_ADDRESS", "localhost"),
        ("ALLOWED_HOSTS", "https://example.org"),
        ("ALLOWED_HOSTS", "example.org:9009"),
        ("ALLOWED_HOSTS", "a,,b"),
        ("BACKEND", "pf"),
        ("XTABLES_LOCK_WAIT", "soon"),
        ("SAMPLE_INTERVAL", "often"),
        ("METRIC_NAMES", "none"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml\nx"),
        ("DATASTORE_TYPE", "etcd"),
        ("DATASTORE_TYPE", "kubernetes"),
        ("ETCD_ENDPOINTS", "ftp://x"),
        ("ETCD_ENDPOINTS", ""),
        ("CALICO_ETCD_ENDPOINTS", "unix:///x"),
        ("ETCD_DISCOVERY_SRV", "example.org"),
        ("ETCD_CA_CERT_FILE", "/nonexistent"),
        ("ETCD_CA_CERT_FILE", "/dev/null"),
        ("ETCD_CA_CERT_FILE", "/"),
        ("ETCD_CERT_FILE", "/dev/null"),
        ("ETCD_KEY_FILE", "/dev/null"),
        ("K8S_INSECURE_SKIP_TLS_VERIFY", ""),
        ("K8S_INSECURE_SKIP_TLS_VERIFY", "maybe"),
        ("CALICO_K8S_DISABLE_NODE_POLL", "maybe"),
        ("USE_POD_CIDR", "yes"),
        ("K8S_CLIENT_QPS", "x"),
        ("K8S_CLIENT_BURST", "x"),
    ];
    for (name, value) in variables {
        refused(&[(name, value)], &[], name);
    }
    for (args, named) in [
        (&["--nope"][..], "--nope"),
        (&["-x"], "-x"),
        (&["server"], "server"),
        (&["metrics", "--json"], "--json"),
        (&["explain"], "explain"),
        (&["top", "--before=x"], "--before"),
        (&["top", "--url=ftp://x"], "--url"),
        (&["metrics", "--etcd-endpoints", "ftp://x"], "--etcd-endpoints"),
        (&["--metrics-server-port"], "--metrics-server-port"),
        (&["--metrics-server-port=x"], "--metrics-server-port"),
        (&["--etcd-endpoints", "ftp://x"], "--etcd-endpoints"),
        (&["--etcd-password=hunter2"], "--etcd-password"),
        (&["--k8s-api-token=hunter2"], "--k8s-api-token"),
        (&["--calico-k8sapitoken", "hunter2"], "--calico-k8sapitoken"),
        (&["-v=x"], "-v"),
    ] {
        refused(&[], args, named);
    }
}

#[test]
fn what_is_wrong_about_the_api_server_is_one_line_too() {
    let fakes = Fakes::new();
    let bad = fakes.file("bad", "users:\n- name: a\n  user:\n    token: [hunter2]\n");
    let lost = fakes.file("lost", "current-context: hunted\n");
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[], "DATASTORE_TYPE"),
        (&[("KUBECONFIG", "/nonexistent")], "KUBECONFIG: cannot read \"/nonexistent\""),
        (&[("KUBECONFIG", bad.to_str().unwrap())], "bad:4: users[0].user.token: expected a string"),
        (&[("CALICO_KUBECONFIG", lost.to_str().unwrap())], "there is no context \"hunted\""),
        (&[("K8S_API_ENDPOINT", "https://u:hunter2@api")], "no user or password"),
        (&[("K8S_API_ENDPOINT", "https://api"), ("K8S_CA_FILE", "/dev/null")], "no certificate in PEM form in \"/dev/null\""),
        (&[("K8S_CA_FILE", "/dev/null")], "no server"),
    ];
    for (variables, named) in cases {
        refused(&[&[("DATASTORE_TYPE", "kubernetes")], variables].concat(), &[], named);
    }
}

#[track_caller]
fn refused(variables: &[(&str, &str)], args: &[&str], named: &str) {
    let (code, output, errors) = run(variables, args);
    assert_eq!((code, output.as_str()), (Some(2), ""), "{variables:?} {args:?}: {errors}");
    assert_eq!(errors.matches('\n').count(), 1, "{variables:?} {args:?}: {errors}");
    assert!(errors.starts_with("calico-accountant: ") && errors.contains(named), "{variables:?} {args:?}: {errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused_too() {
    use std::os::unix::ffi::OsStrExt;
    let output = command().arg(std::ffi::OsStr::from_bytes(b"--metrics-server-port=\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
}
