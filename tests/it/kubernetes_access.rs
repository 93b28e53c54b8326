//! Credentials for the API server, from real files and real plugins.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use calico_accountant::config::{self, Command, Datastore, KubernetesConfig, World};
use calico_accountant::kubernetes::{Access, Configured};
use serde_json::{Value, json};

use crate::support::certificates::Certificates;
use crate::support::fakes::Fakes;

const V1: &str = "client.authentication.k8s.io/v1";

/// The configuration that a kubeconfig gives.
fn configured(kubeconfig: &Path) -> KubernetesConfig {
    let variable = |name: &str| match name {
        "KUBECONFIG" => Some(kubeconfig.as_os_str().to_owned()),
        "DATASTORE_TYPE" => Some(OsString::from("kubernetes")),
        "NODENAME" => Some(OsString::from("node-1")),
        _ => None,
    };
    let read_file = |path: &Path| fs::read(path);
    match config::parse([], &World { variable: &variable, read_file: &read_file }) {
        Ok(Command::Run(config, _)) => match config.datastore {
            Datastore::Kubernetes(config) => *config,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// A folder with a kubeconfig for one user, and the test's other files.
struct Folder(Fakes);

impl Folder {
    fn new() -> Self {
        Folder(Fakes::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn access(&self, cluster: Value, user: Value) -> Configured {
        let kubeconfig = json!({
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        let path = self.0.file("kubeconfig", &kubeconfig.to_string());
        Configured::within(configured(&path), Duration::from_millis(1500))
    }

    /// Access with a plugin that runs `script`. Each run writes a line to the file `runs`.
    fn plugin(&self, script: &str) -> Configured {
        self.0.set("plugin", &format!("cd '{}'; echo run >> runs\n{script}", self.0.path().display()));
        let exec = json!({ "apiVersion": V1, "command": "./plugin", "interactiveMode": "Never", "installHint": "get it" });
        self.access(json!({ "server": "https://api:6443" }), json!({ "exec": exec }))
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }
}

/// A shell command that prints a plugin's answer.
fn prints(status: &str) -> String {
    format!("echo '{{\"kind\":\"ExecCredential\",\"apiVersion\":\"{V1}\",\"status\":{status}}}'")
}

fn token(access: &Configured) -> String {
    access.current().unwrap().token().unwrap().to_owned()
}

#[test]
fn a_token_that_rotates_on_disk_is_followed() {
    let folder = Folder::new();
    let file = folder.0.file("token", "first\n");
    let access = folder.access(json!({ "server": "https://api" }), json!({ "tokenFile": "token" }));
    assert_eq!(token(&access), "first");
    fs::rename(folder.0.file("new", "second"), &file).unwrap();
    assert_eq!(token(&access), "second");
    // The last token is kept while there is no usable one.
    fs::remove_file(&file).unwrap();
    assert_eq!(token(&access), "second");
    folder.0.file("token", "");
    assert_eq!(token(&access), "second");
    folder.0.file("token", "third");
    assert_eq!(token(&access), "third");

    fs::remove_file(&file).unwrap();
    let unread = folder.access(json!({ "server": "https://api" }), json!({ "tokenFile": "token" }));
    let error = || unread.current().unwrap_err().to_string();
    assert!(error().contains(&format!("{}: No such file", file.display())), "{}", error());
    folder.0.file("token", "\n");
    assert!(error().ends_with("is empty or malformed"), "{}", error());
}

#[test]
fn rotated_certificates_are_read_anew() {
    let (folder, one, two) = (Folder::new(), Certificates::new(None), Certificates::new(None));
    let install = |from: &Certificates| {
        for (path, name) in [(from.ca(), "ca.pem"), (from.client_cert(), "client.pem"), (from.client_key(), "client.key")] {
            fs::copy(path, folder.path(name)).unwrap();
        }
    };
    install(&one);
    let cluster = json!({ "server": "https://api", "certificate-authority": "ca.pem" });
    let access = folder.access(cluster, json!({ "client-certificate": "client.pem", "client-key": "client.key" }));
    let before = access.current().unwrap();
    assert!(before.same_connection(&access.current().unwrap()));
    install(&two);
    let after = access.current().unwrap();
    assert!(!before.same_connection(&after));
    assert_eq!(after.ca, Some(fs::read(two.ca()).unwrap()));
    assert_eq!(after.client, Some((fs::read(two.client_cert()).unwrap(), fs::read(two.client_key()).unwrap())));
    assert_eq!(after.authorization(), None);
}

#[test]
fn a_plugin_runs_until_its_answer_expires_or_is_refused() {
    let folder = Folder::new();
    let access = folder.plugin(&prints(r#"{"token":"t'$(wc -l < runs)'"}"#));
    let first = access.current().unwrap();
    assert_eq!((first.token(), token(&access).as_str(), folder.runs()), (Some("t1"), "t1", 1));
    access.refused(&first);
    assert_eq!((token(&access).as_str(), folder.runs()), ("t2", 2));
    // Another thread was refused with the first token. That does not invalidate the second.
    access.refused(&first);
    assert_eq!((token(&access).as_str(), folder.runs()), ("t2", 2));

    let folder = Folder::new();
    let access = folder.plugin(&prints(r#"{"token":"t","expirationTimestamp":"2020-01-01T00:00:00Z"}"#));
    assert_eq!((token(&access), token(&access), folder.runs()), ("t".into(), "t".into(), 2));
    let access = folder.plugin(&prints(r#"{"token":"t","expirationTimestamp":"2100-01-01T00:00:00Z"}"#));
    assert_eq!((token(&access), token(&access), folder.runs()), ("t".into(), "t".into(), 3));
}

#[test]
fn threads_share_one_run() {
    let folder = Folder::new();
    let access = Arc::new(folder.plugin(&format!("sleep 0.2; {}", prints(r#"{"token":"t"}"#))));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let access = Arc::clone(&access);
            thread::spawn(move || token(&access))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "t");
    }
    assert_eq!(folder.runs(), 1);
}

#[test]
fn a_plugin_is_told_what_the_kubeconfig_says() {
    let (folder, certificates) = (Folder::new(), Certificates::new(None));
    folder.0.set(
        "plugin",
        &format!(
            "cd '{}'; printf '%s' \"$KUBERNETES_EXEC_INFO\" > info; printf '%s' \"$1 $2 $EXTRA\" > told\n{}",
            folder.0.path().display(),
            prints(r#"{"clientCertificateData":"cert","clientKeyData":"key"}"#)
        ),
    );
    let cluster = json!({
        "server": "https://api:6443",
        "tls-server-name": "kubernetes",
        "certificate-authority": certificates.ca(),
        "extensions": [{ "name": "client.authentication.k8s.io/exec", "extension": { "audience": "x" } }],
    });
    let exec = |provide: bool| {
        json!({ "exec": {
            "apiVersion": V1, "command": folder.path("plugin"), "args": ["a b", "c"], "env": [{ "name": "EXTRA", "value": "d" }],
            "provideClusterInfo": provide,
        }})
    };
    let credentials = folder.access(cluster.clone(), exec(true)).current().unwrap();
    assert_eq!((credentials.client.clone(), credentials.authorization()), (Some((b"cert".to_vec(), b"key".to_vec())), None));
    assert_eq!(fs::read_to_string(folder.path("told")).unwrap(), "a b c d");
    let info = || serde_json::from_str::<Value>(&fs::read_to_string(folder.path("info")).unwrap()).unwrap();
    let told = info();
    assert_eq!((&told["kind"], &told["apiVersion"]), (&json!("ExecCredential"), &json!(V1)));
    assert_eq!(told["spec"]["interactive"], json!(false));
    let cluster_told = &told["spec"]["cluster"];
    assert_eq!((&cluster_told["server"], &cluster_told["config"]["audience"]), (&json!("https://api:6443"), &json!("x")));
    assert_eq!(cluster_told["tls-server-name"], json!("kubernetes"));
    assert!(cluster_told["certificate-authority-data"].as_str().unwrap().starts_with("LS0tLS1CRUdJTi"));
    folder.access(cluster, exec(false)).current().unwrap();
    assert_eq!(info()["spec"], json!({ "interactive": false }));
}

#[test]
fn plugins_that_misbehave_are_stopped_and_their_secrets_kept() {
    for (script, expected) in [
        ("echo no credentials here >&2; exit 3", "ended with exit code 3: no credentials here"),
        ("sleep 100", "was killed: it had not ended after 1.5 s"),
        ("sleep 100 & exec >&-; sleep 100", "was killed: it had not ended after 1.5 s"),
        ("yes", "was killed: it printed more than 1048576 bytes"),
        ("echo hunter2", "its output is not an ExecCredential (line 1)"),
        ("true", "its output is not an ExecCredential"),
    ] {
        let folder = Folder::new();
        let begun = Instant::now();
        let text = folder.plugin(script).current().unwrap_err().to_string();
        assert!(text.split_once(": ").unwrap().1.starts_with(expected), "{script}: {text}");
        assert!(text.starts_with("credential plugin /") && !text.contains("hunter2") && !text.contains('\n'), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
    }
}

#[test]
fn a_plugin_that_is_missing_comes_with_its_hint() {
    for command in ["./none", "no-such-program-anywhere"] {
        let folder = Folder::new();
        let exec = json!({ "exec": { "apiVersion": V1, "command": command, "installHint": "get it\nthere" } });
        let error = folder.access(json!({ "server": "https://api" }), exec).current().unwrap_err().to_string();
        assert!(error.ends_with(": there is no such program (get it there)"), "{error}");
    }
}
