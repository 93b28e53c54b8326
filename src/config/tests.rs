//! Tests of the rules, one table row each, with invented environments and files.

use std::collections::HashMap;

use super::*;

pub const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
pub const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

const NO_API_SERVER: &str = "neither KUBECONFIG nor K8S_API_ENDPOINT nor a pod's service account says where the API server is";

/// Parses `args` with these variables and files, in addition to a valid minimum: one endpoint and a node name.
fn run(variables: &[(&str, &str)], files: &[(&str, &str)], args: &[&str]) -> Result<(Config, Vec<Remark>), String> {
    let minimum = [("ETCD_ENDPOINTS", "http://127.0.0.1:2379"), ("NODENAME", "node-1")];
    // `(name, "-")` removes a variable.
    let variables: HashMap<&str, &str> =
        minimum.into_iter().chain(variables.iter().copied()).filter(|(name, _)| !variables.contains(&(*name, "-"))).collect();
    parsed(&variables, &files.iter().copied().collect(), args)
}

pub fn parsed(variables: &HashMap<&str, &str>, files: &HashMap<&str, &str>, args: &[&str]) -> Result<(Config, Vec<Remark>), String> {
    let variable = |name: &str| variables.get(name).map(OsString::from);
    let read_file = |path: &Path| match path.to_str().and_then(|path| files.get(path)) {
        Some(content) => Ok(content.as_bytes().to_vec()),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    match parse(args.iter().map(OsString::from), &World { variable: &variable, read_file: &read_file }) {
        Ok(Command::Run(config, remarks)) => Ok((*config, remarks)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn config(variables: &[(&str, &str)], args: &[&str]) -> Config {
    run(variables, &[], args).unwrap().0
}

fn etcd(variables: &[(&str, &str)], files: &[(&str, &str)]) -> EtcdConfig {
    match run(variables, files, &[]).unwrap().0.datastore {
        Datastore::Etcd(etcd) => etcd,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(variables: &[(&str, &str)], args: &[&str], expected: &str) {
    let error = run(variables, &[], args).map(|_| ()).unwrap_err();
    assert_eq!(error, expected, "{variables:?} {args:?}");
    assert!(!error.contains('\n'));
}

/// `others` are variables that are set in addition to the wrong one.
#[track_caller]
fn not_allowed(others: &[(&str, &str)], name: &str, value: &str, allowed: &str) {
    refused(&[others, &[(name, value)]].concat(), &[], &format!("{name}: {value:?} is not allowed: {allowed}"));
}

#[test]
fn defaults() {
    let endpoints = vec!["http://127.0.0.1:2379".into()];
    let etcd = EtcdConfig { endpoints, discovery: None, credentials: None, ca_file: None, client_cert: None };
    let expected = Config {
        node_name: "node-1".into(),
        listen_address: "::".parse().unwrap(),
        port: 9009,
        allowed_hosts: Vec::new(),
        grafana_url: None,
        minimum_counter: 0,
        datastore: Datastore::Etcd(etcd),
        pod_logs: "/var/log/pods".into(),
        backend: BackendChoice::Auto,
        source: SourceChoice::Auto,
        lock_path: "/run/xtables.lock".into(),
        lock_wait: Duration::from_secs(2),
        bpffs: "/sys/fs/bpf".into(),
        calico_run: "/var/run/calico".into(),
        sampling: Sampling::WhereItPays,
        exposition: Exposition::default(),
        witnesses: None,
        log_level: log::LevelFilter::Info,
        log_format: LogFormat::Logfmt,
    };
    assert_eq!(config(&[], &[]), expected);
}

#[test]
fn own_variables_set_to_nothing_are_unset() {
    let names = ["METRICS_SERVER_PORT", "ALLOWED_HOSTS", "MINIMUM_COUNTER", "LISTEN_ADDRESS", "BACKEND", "SOURCE", "XTABLES_LOCKFILE"];
    let more = [
        "GRAFANA_URL",
        "XTABLES_LOCK_WAIT",
        "SAMPLE_INTERVAL",
        "METRIC_NAMES",
        "ZERO_SERIES",
        "METRIC_FAMILIES",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "CALICO_NODENAME_FILE",
        "WITNESSES",
    ];
    let empty: Vec<_> = names.into_iter().chain(more).map(|name| (name, "")).collect();
    assert_eq!(config(&empty, &[]), config(&[], &[]));
}

#[test]
fn own_variables_and_flags() {
    let variables = [
        ("METRICS_SERVER_PORT", "9010"),
        ("MINIMUM_COUNTER", " 5 "),
        ("LISTEN_ADDRESS", "[::1]"),
        ("BACKEND", "NFT"),
        ("XTABLES_LOCKFILE", "/var/run/lock"),
        ("XTABLES_LOCK_WAIT", "500ms"),
        ("SAMPLE_INTERVAL", "1s"),
        ("METRIC_NAMES", "legacy"),
        ("LOG_LEVEL", "debug"),
        ("LOG_FORMAT", "json"),
        ("ALLOWED_HOSTS", "a.example.org, b-1 ,*"),
        ("GRAFANA_URL", "https://grafana.example.org:3000/sub/"),
    ];
    let set = config(&variables, &[]);
    assert_eq!(set.allowed_hosts, ["a.example.org", "b-1", "*"]);
    assert_eq!(set.grafana_url.as_deref(), Some("https://grafana.example.org:3000/sub"));
    assert_eq!((set.port, set.minimum_counter, set.listen_address), (9010, 5, "::1".parse().unwrap()));
    assert_eq!((set.backend, set.exposition.names, set.log_format), (BackendChoice::Nft, MetricNames::Legacy, LogFormat::Json));
    assert_eq!((set.lock_path, set.lock_wait), (PathBuf::from("/var/run/lock"), Duration::from_millis(500)));
    assert_eq!((set.log_level, set.sampling), (log::LevelFilter::Debug, Sampling::Every(Duration::from_secs(1))));
    assert_eq!(config(&[("SAMPLE_INTERVAL", "0")], &[]).sampling, Sampling::Never);
    let traced = config(&[("WITNESSES", "groups"), ("WITNESS_RATE", "7"), ("WITNESS_LOG", "true")], &[]).witnesses;
    assert_eq!(traced, Some(Witnesses { groups: true, rate: 7, log: true }));
    assert_eq!(config(&[("WITNESSES", "drops")], &[]).witnesses, Some(Witnesses { groups: false, rate: 100, log: false }));

    let flags = ["--metrics-server-port=1", "--listen-address", "127.0.0.1", "--backend=legacy", "--metric-names=standard"];
    let flagged = config(&variables, &flags);
    assert_eq!((flagged.port, flagged.listen_address), (1, "127.0.0.1".parse().unwrap()));
    assert_eq!((flagged.backend, flagged.exposition.names), (BackendChoice::Legacy, MetricNames::Standard));
}

#[test]
fn a_service_link_is_no_port() {
    let link = "tcp://10.43.106.12:443";
    assert_eq!(config(&[("METRICS_SERVER_PORT", link)], &[]).port, 9009);
    let remark = format!("METRICS_SERVER_PORT: ignored, {link:?} is a service link of Kubernetes or Docker and not a port");
    let (_, remarks) = run(&[("METRICS_SERVER_PORT", link)], &[], &[]).unwrap();
    assert_eq!(remarks.iter().filter(|found| found.text == remark).count(), 1);
    assert_eq!(config(&[("METRICS_SERVER_PORT", link)], &["--metrics-server-port=9010"]).port, 9010);
    // A flag can only come from the user.
    let refusal = format!("--metrics-server-port: {link:?} is not allowed: a TCP port, 0 to 65535 (0: any free one)");
    refused(&[], &["--metrics-server-port", link], &refusal);
}

#[test]
fn glogs_verbosity_gives_way_to_log_level() {
    assert_eq!(config(&[], &["-v=4"]).log_level, log::LevelFilter::Debug);
    assert_eq!(config(&[("LOG_LEVEL", "warn")], &["-v=4"]).log_level, log::LevelFilter::Warn);
}

#[test]
fn wrong_own_values_name_the_variable_or_flag() {
    let port = "a TCP port, 0 to 65535 (0: any free one)";
    refused(&[], &["--metrics-server-port=x\ny"], &format!("--metrics-server-port: \"x\\ny\" is not allowed: {port}"));
    let families = "all, or names such as drop_packets,policy_info, or -drop_packets,-policy_info (all but these), of ";
    let families = families.to_owned() + &FAMILIES.join(", ");
    for (name, value, allowed) in [
        ("METRICS_SERVER_PORT", "65536", port),
        ("METRICS_SERVER_PORT", ":9009", port),
        ("MINIMUM_COUNTER", "-1", "a whole number of packets, 0 or more"),
        ("LISTEN_ADDRESS", "localhost", "an IPv4 or IPv6 address without a port"),
        ("GRAFANA_URL", "grafana.example.org", "an http:// or https:// URL without a query, such as https://grafana.example.org"),
        ("GRAFANA_URL", "javascript:alert(1)", "an http:// or https:// URL without a query, such as https://grafana.example.org"),
        ("GRAFANA_URL", "https://a.example/?x\"", "an http:// or https:// URL without a query, such as https://grafana.example.org"),
        ("BACKEND", "pf", "one of auto, legacy, nft, nftables, ebpf"),
        ("SOURCE", "proc", "one of auto, save, kernel"),
        ("METRIC_NAMES", "none", "one of all, legacy, standard"),
        ("ZERO_SERIES", "0", "one of keep, omit"),
        ("METRIC_FAMILIES", "drop_packets,drops", &families),
        ("METRIC_FAMILIES", "drop_packets,-policy_info", &families),
        ("METRIC_FAMILIES", ",", &families),
        ("LOG_LEVEL", "loud", "one of error, warn, info, debug, trace"),
        ("LOG_FORMAT", "xml", "one of logfmt, json"),
        ("SAMPLE_INTERVAL", "50ms", "0 (never), or a duration from 100ms to 60s"),
        ("WITNESSES", "on", "one of off, drops, groups"),
        ("WITNESS_RATE", "0", "a number from 1 to 10000"),
        ("XTABLES_LOCK_WAIT", "61s", "a duration such as 2s, 500ms or 2 (seconds), at most 60s"),
    ] {
        not_allowed(&[], name, value, allowed);
    }
}

#[test]
fn calicos_spelling_comes_first_and_hides_the_other() {
    let other = ("CALICO_ETCD_ENDPOINTS", "http://10.0.0.1:2379");
    assert_eq!(etcd(&[other], &[]).endpoints, ["http://10.0.0.1:2379"]);
    refused(&[("CALICO_ETCD_ENDPOINTS", "")], &[], &format!("DATASTORE_TYPE and ETCD_ENDPOINTS: not set, but {NO_API_SERVER}"));
    let flagged = config(&[other], &["--etcd-endpoints=http://10.0.0.2:2379"]);
    assert_eq!(flagged.datastore, config(&[("ETCD_ENDPOINTS", "http://10.0.0.2:2379")], &[]).datastore);
    // The exporter's own variables have no such spelling.
    assert_eq!(config(&[("CALICO_METRICS_SERVER_PORT", "1")], &[]).port, 9009);
}

#[test]
fn variables_only_calico_uses_must_be_well_formed() {
    for (name, good) in [("USE_POD_CIDR", "true"), ("K8S_DISABLE_NODE_POLL", "F"), ("K8S_CLIENT_QPS", "1.5"), ("K8S_CLIENT_BURST", "0x10")]
    {
        run(&[(name, good)], &[], &[]).unwrap();
    }
    let bools = "one of true, false, 1, 0, t, f";
    for (name, value) in [("K8S_INSECURE_SKIP_TLS_VERIFY", ""), ("CALICO_K8S_DISABLE_NODE_POLL", ""), ("USE_POD_CIDR", "yes")] {
        not_allowed(&[], name, value, bools);
    }
    not_allowed(&[], "K8S_CLIENT_QPS", "fast", "a number");
    not_allowed(&[], "K8S_CLIENT_BURST", "1.5", "a whole number");
    // The hidden spelling is not checked.
    run(&[("CALICO_USE_POD_CIDR", "true"), ("USE_POD_CIDR", "yes")], &[], &[]).unwrap();
}

#[test]
fn the_kind_of_datastore() {
    run(&[("DATASTORE_TYPE", "etcdv3")], &[], &[]).unwrap();
    run(&[("DATASTORE_TYPE", "")], &[], &[]).unwrap();
    for wrong in ["etcd", "Kubernetes"] {
        not_allowed(&[], "DATASTORE_TYPE", wrong, "one of etcdv3, kubernetes, none");
    }
    let by_type = format!("CALICO_DATASTORE_TYPE: \"kubernetes\", but {NO_API_SERVER}");
    refused(&[("CALICO_DATASTORE_TYPE", "kubernetes")], &[], &by_type);
    refused(&[("ETCD_ENDPOINTS", "-")], &[], &format!("DATASTORE_TYPE and ETCD_ENDPOINTS: not set, but {NO_API_SERVER}"));
    assert_eq!(config(&[("DATASTORE_TYPE", "none")], &[]).datastore, Datastore::None);
    let endpoint = ("K8S_API_ENDPOINT", "https://api");
    for (variables, kubernetes) in [
        (&[endpoint][..], false),
        (&[endpoint, ("DATASTORE_TYPE", "kubernetes")], true),
        (&[endpoint, ("ETCD_ENDPOINTS", "-")], true),
        (&[endpoint, ("ETCD_ENDPOINTS", "-"), ("ETCD_DISCOVERY_SRV", "x.org")], false),
    ] {
        let datastore = config(variables, &[]).datastore;
        assert_eq!(matches!(datastore, Datastore::Kubernetes(_)), kubernetes, "{variables:?}");
    }
    let no_endpoints = [("ETCD_ENDPOINTS", "-"), ("DATASTORE_TYPE", "etcdv3")];
    refused(&no_endpoints, &[], "ETCD_ENDPOINTS: not set, but the datastore is etcdv3");
    refused(&[("ETCD_DISCOVERY_SRV", "x.org")], &[], "ETCD_ENDPOINTS and ETCD_DISCOVERY_SRV: only one of the two may be set");
    let discovery = |domain| etcd(&[("ETCD_ENDPOINTS", "-"), ("ETCD_DISCOVERY_SRV", domain)], &[]);
    assert_eq!((discovery("x.org.").discovery.as_deref(), discovery("x.org.").endpoints), (Some("x.org"), Vec::new()));
    for wrong in ["x..org", ".", "x org", "http://x.org"] {
        not_allowed(&[("ETCD_ENDPOINTS", "-")], "ETCD_DISCOVERY_SRV", wrong, "a DNS domain, such as example.org");
    }
}

#[test]
fn endpoints_get_a_scheme_and_lose_their_slash() {
    let tls = [("/ca", CERTIFICATE)];
    for (list, ca, expected) in [
        ("http://a:1/", "", &["http://a:1"][..]),
        (" http://a:1 ,, https://b:2//,", "", &["http://a:1", "https://b:2"]),
        ("a:1,HTTP://b:2", "", &["http://a:1", "http://b:2"]),
        ("a:1,http://b:2", "/ca", &["https://a:1", "http://b:2"]),
        ("[fd00::1]:2379,http://[::1]", "", &["http://[fd00::1]:2379", "http://[::1]"]),
    ] {
        assert_eq!(etcd(&[("ETCD_ENDPOINTS", list), ("ETCD_CA_CERT_FILE", ca)], &tls).endpoints, expected, "{list:?}");
    }
    let allowed = "http:// or https:// URLs of host and port, separated by commas";
    for list in
        ["unix:///run/etcd", "ftp://a:1", "http://", "http://a:1/path", "http://a:b", "a:0", "a:99999", ",", "http://a b:1", "fd00::1"]
    {
        not_allowed(&[], "ETCD_ENDPOINTS", list, allowed);
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let error = run(&[("ETCD_ENDPOINTS", "http://root:hunter2@a:1,ftp://b")], &[], &[]).unwrap_err();
    assert!(error.starts_with("ETCD_ENDPOINTS: no user or password") && !error.contains("hunter2"), "{error}");
    let (config, remarks) = run(&[("ETCD_USERNAME", "root"), ("ETCD_PASSWORD", "hunter2")], &[], &[]).unwrap();
    let Datastore::Etcd(etcd) = &config.datastore else { panic!("{config:?}") };
    assert_eq!(etcd.credentials, Some(("root".into(), "hunter2".into())));
    assert!(!format!("{config:?} {remarks:?}").contains("hunter2"));
}

#[test]
fn user_and_password_count_only_together() {
    for (set, unset) in [("ETCD_USERNAME", "ETCD_PASSWORD"), ("ETCD_PASSWORD", "ETCD_USERNAME")] {
        let (config, remarks) = run(&[(set, "x"), (unset, "")], &[], &[]).unwrap();
        let Datastore::Etcd(etcd) = config.datastore else { panic!("{config:?}") };
        assert_eq!(etcd.credentials, None);
        let warning = Remark::warn(format!("{set} has no effect without {unset}"));
        assert!(remarks.contains(&warning), "{remarks:?}");
    }
}

#[test]
fn tls_files_are_checked_at_the_start() {
    let files = [("/cert", CERTIFICATE), ("/key", KEY), ("/empty", "")];
    let all = etcd(&[("ETCD_CA_CERT_FILE", "/cert"), ("ETCD_CERT_FILE", "/cert"), ("ETCD_KEY_FILE", "/key")], &files);
    assert_eq!(all.ca_file, Some("/cert".into()));
    assert_eq!(all.client_cert, Some(("/cert".into(), "/key".into())));
    // The values that calico-etcd.yaml sets without TLS.
    assert_eq!(etcd(&[("ETCD_CA_CERT_FILE", ""), ("ETCD_CERT_FILE", ""), ("ETCD_KEY_FILE", "")], &[]).ca_file, None);
    for (variables, expected) in [
        (&[("ETCD_CA_CERT_FILE", "/none")][..], "ETCD_CA_CERT_FILE: cannot read \"/none\": entity not found"),
        (&[("CALICO_ETCD_CA_CERT_FILE", "/empty")], "CALICO_ETCD_CA_CERT_FILE: no certificate in PEM form in \"/empty\""),
        (&[("ETCD_CA_CERT_FILE", "/key")], "ETCD_CA_CERT_FILE: no certificate in PEM form in \"/key\""),
        (&[("ETCD_CERT_FILE", "/cert")], "ETCD_CERT_FILE: needs ETCD_KEY_FILE, which is not set"),
        (&[("ETCD_KEY_FILE", "/key")], "ETCD_KEY_FILE: needs ETCD_CERT_FILE, which is not set"),
        (&[("ETCD_CERT_FILE", "/none"), ("ETCD_KEY_FILE", "/key")], "ETCD_CERT_FILE: cannot read \"/none\": entity not found"),
        (&[("ETCD_CERT_FILE", "/cert"), ("ETCD_KEY_FILE", "/none")], "ETCD_KEY_FILE: cannot read \"/none\": entity not found"),
        (&[("ETCD_CERT_FILE", "/cert"), ("ETCD_KEY_FILE", "/cert")], "ETCD_KEY_FILE: no unencrypted private key in PEM form in \"/cert\""),
    ] {
        assert_eq!(run(variables, &files, &[]).unwrap_err(), expected);
    }
}

#[test]
fn the_node_name_in_calicos_order() {
    const FILE: &str = "/var/lib/calico/nodename";
    const HOST: (&str, &str) = ("/proc/sys/kernel/hostname", "Host\n");
    let none = ("NODENAME", "-");
    for (variables, files, name, source) in [
        (&[("NODENAME", " Node-A "), ("HOSTNAME", "h")][..], &[(FILE, "f")][..], "Node-A", "NODENAME"),
        (&[("NODENAME", ""), ("NODE_NAME", "n")], &[(FILE, "F\n"), HOST], "F", FILE),
        (&[none, ("CALICO_NODENAME_FILE", "/x")], &[("/x", "x"), (FILE, "f")], "x", "/x"),
        (&[none, ("CALICO_NODENAME_FILE", "/x"), ("HOSTNAME", "H")], &[(FILE, "f")], "h", "HOSTNAME"),
        (&[none, ("NODE_NAME", "N"), ("HOSTNAME", "H")], &[(FILE, " \n")], "N", "NODE_NAME"),
        (&[none, ("NODE_NAME", " "), ("HOSTNAME", " Hn ")], &[HOST], "hn", "HOSTNAME"),
        (&[none, ("HOSTNAME", "")], &[HOST], "host", "the host's name"),
    ] {
        let (config, remarks) = run(variables, files, &[]).unwrap();
        assert_eq!(config.node_name, name, "{variables:?}");
        assert_eq!(remarks[0].text, format!("node name {name:?} (from {source})"));
    }
    assert_eq!(run(&[none], &[], &["--nodename=F"]).unwrap().0.node_name, "F");
    refused(&[none], &[], "NODENAME: not set, and the node's name is not known otherwise");
}
