//! The commands of the documents, run as they stand there: in the demo, on saved tables, on a real API server. A block of commands
//! names its test, or says why there is none.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Page, ROOT, pages, run_by};
use crate::deploy::promql::selectors;
use crate::program;
use crate::support::can_run;
use crate::support::demo::Demo;
use crate::support::documented;
use crate::support::etcd::Scratch;
use crate::support::fixture;
use crate::support::helm::Helm;
use crate::support::kube::{ADMIN, Kube};

fn source(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_default()
}

/// Whether a test has this name and runs the blocks that name it.
fn is_run_by(test: &str) -> bool {
    let Some((module, name)) = test.rsplit_once("::") else { return false };
    let source = source(&format!("tests/it/{}.rs", module.replace("::", "/")));
    source.contains(&format!("fn {name}()")) && source.contains(&format!("run_by(\"{test}\")"))
}

#[test]
fn every_block_names_its_test_or_says_why_there_is_none() {
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "sh") {
            let comment = block.before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or_default();
            let is_told = comment.strip_prefix("run by ").map_or(comment.starts_with("not run by a test: "), is_run_by);
            assert!(is_told, "{}:{}: {:?} is before it", page.path, block.line, block.before);
        }
    }
}

#[test]
fn every_target_of_make_exists_and_ci_runs_the_readmes() {
    let makefile = source("Makefile");
    let targets = |page: &Page| -> BTreeSet<String> {
        // In code, or as a line of a block.
        let code = page.text.split(['`', '\n']).filter_map(|code| code.strip_prefix("make "));
        code.map(|words| words.split(' ').next().unwrap().to_owned()).collect()
    };
    for page in pages() {
        let targets = targets(&page);
        targets.iter().for_each(|target| assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", page.path));
        assert!(page.path != "README.md" || (targets.contains("test") && targets.contains("demo")), "{targets:?}");
    }
    assert!(source(".ci/run").contains("\nmake test"));
}

/// What PromQL asks for is documented, or recorded by our rules.
#[test]
fn every_query_asks_for_what_there_is() {
    let known = &documented::metrics(false) | &documented::metrics(true);
    let rules = source("deploy/prometheus/calico-accountant.rules.yaml");
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "promql") {
            let selectors = selectors(&block.text);
            assert!(!selectors.is_empty(), "{}:{}", page.path, block.line);
            for selector in selectors {
                let is_known = known.contains(&*selector.metric) || rules.contains(&format!("record: {}\n", selector.metric));
                assert!(is_known, "{}:{}: {}", page.path, block.line, selector.metric);
            }
        }
    }
}

/// Runs shell commands with the program, and others put before it, on the search path.
fn shell(script: &str, programs: &Path) -> Command {
    _ = symlink(program::binary(), programs.join("calico-accountant"));
    let mut command = Command::new("sh");
    command.args(["-euc", script]).stdin(Stdio::null()).env_clear();
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()));
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// What each command must print. Commands that run until Ctrl-C get it after a few seconds, longer than a round of the demo.
const IN_THE_DEMO: &[(&str, &str)] = &[
    ("calico-accountant top", "shop/web-1"),
    ("calico-accountant explain shop/web-1", "NetworkPolicy shop/web-deny"),
    ("calico-accountant watch shop/web-1 --dropped", "shop/web-1 <- "),
    ("calico-accountant watch shop/web-1 ", "policy"),
    ("calico-accountant watch --policy default.allow-all", "Watching packets"),
    ("calico-accountant policies", "shop/"),
    ("calico-accountant workloads", "web-1"),
    ("calico-accountant check --json", "\"result\""),
    ("calico-accountant check", "one answers at"),
    ("calico-accountant metrics --output", ""),
    ("iptables-save -c", "cali-tw-cali751425ce827"),
    ("nft -j list ruleset", "cali-tw-cali751425ce827"),
];

#[test]
fn in_the_demo() {
    let Some(mut demo) = Demo::start("the documents' commands in the demo") else { return };
    let programs = Scratch::new();
    let blocks = run_by("documents::commands::in_the_demo");
    for line in blocks.iter().flat_map(|block| block.lines()) {
        let (_, expected) = IN_THE_DEMO.iter().find(|(begin, _)| line.starts_with(begin)).unwrap_or_else(|| panic!("{line}: not expected"));
        let mut command = Command::new("ip");
        let folder = "mount -t tmpfs none /var/lib && mkdir /var/lib/node_exporter && exec timeout -k 5 -s INT 8 sh -euc \"$0\"";
        command.args(["netns", "exec", &demo.node(), "sh", "-euc", folder, line]).stdin(Stdio::null());
        _ = symlink(program::binary(), programs.path().join("calico-accountant"));
        command.env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.path().display()));
        command.env("NODENAME", "node1").env("ETCD_ENDPOINTS", "http://127.0.0.1:2379");
        let output = command.output().unwrap();
        // 124: it went on until it was ended.
        let ends = !["top", "watch"].iter().any(|name| line.contains(&format!("calico-accountant {name}")));
        let code = output.status.code();
        assert!(code == Some(0) || (!ends && code == Some(124)), "{line}: {code:?} {}", said(&output));
        assert!(said(&output).contains(expected), "{line}: {}", said(&output));
    }
    demo.end();
}

#[test]
fn on_saved_tables() {
    let (programs, folder) = (Scratch::new(), Scratch::new());
    let saved = |moment: &str, family: &str| fixture::path("captures/v3.32.1-legacy").join(format!("{moment}/{family}-save.txt.gz"));
    for family in ["iptables", "ip6tables"] {
        fs::copy(saved("t2", family), folder.path().join(format!("{family}-save.txt.gz"))).unwrap();
    }
    for (name, moment) in [("monday.txt", "t1"), ("tuesday.txt", "t2")] {
        let text = fixture::text(&format!("captures/v3.32.1-legacy/{moment}/iptables-save.txt.gz"));
        fs::write(folder.path().join(name), text).unwrap();
    }
    for block in run_by("documents::commands::on_saved_tables") {
        let output = shell(&block, programs.path()).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success() && said(&output).contains("cali751425ce827"), "{block}: {}", said(&output));
    }
}

/// helm, and kubectl, of the administrator's.
#[test]
fn on_an_api_server() {
    let test = "the documents' commands on an API server";
    let Some(helm) = Helm::built(test) else { return };
    let Some(kube) = Kube::start() else { return };
    for kind in ["PodMonitor", "PrometheusRule"] {
        kube.define("monitoring.coreos.com", "v1", kind, true);
    }
    kube.define("security.openshift.io", "v1", "SecurityContextConstraints", false);
    let programs = Scratch::new();
    let (url, ca) = (kube.url(), kube.certificates.ca());
    let helms = format!("--kube-apiserver {url} --kube-token {ADMIN} --kube-ca-file {}", ca.display());
    let kubectls =
        format!("--server {url} --token {ADMIN} --certificate-authority {} --cache-dir {}", ca.display(), kube.file("c").display());
    for (name, to, place) in
        [("helm", helms, crate::support::helm::program()), ("kubectl", kubectls, crate::support::kube::program("kubectl"))]
    {
        let file = programs.path().join(name);
        fs::write(&file, format!("#!/bin/sh\nexec {} {to} \"$@\"\n", place.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for block in run_by("documents::commands::on_an_api_server") {
        let mut command = shell(&block, programs.path());
        command.current_dir(ROOT).env("HOME", helm.file("")).env("KUBECONFIG", "/dev/null");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{block}: {}", said(&output));
        // The chart's cluster-wide objects belong to one release.
        if block.contains("--namespace kube-system") {
            helm.on(&kube, "kube-system", &["uninstall", "calico-accountant"]);
        }
    }
    let namespace = kube.call("GET", "/api/v1/namespaces/calico-accountant", &serde_json::Value::Null);
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
}

/// In mounts of its own; systemctl only links, for no service manager runs there.
#[test]
fn under_systemd() {
    let unshared = Command::new("unshare").args(["--mount", "systemctl", "--version"]).stdout(Stdio::null()).status();
    if !can_run("the README's commands for systemd", unshared.is_ok_and(|status| status.success()), "root and systemd") {
        return;
    }
    let folder = Scratch::new();
    fs::create_dir(folder.path().join("dist")).unwrap();
    symlink(program::binary(), folder.path().join("dist/calico-accountant")).unwrap();
    symlink(Path::new(ROOT).join("deploy"), folder.path().join("deploy")).unwrap();
    let block = run_by("documents::commands::under_systemd").concat();
    let script = format!(
        "mount -t tmpfs none /etc/default && mount -t tmpfs none /usr/local && mkdir /usr/local/bin && mount -t tmpfs none /etc/systemd && mkdir /etc/systemd/system\n{block}\
         systemd-analyze verify --man=no calico-accountant.service\ntest \"$(systemctl is-enabled calico-accountant)\" = enabled"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euxc", &script]).env("SYSTEMD_OFFLINE", "1").current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
