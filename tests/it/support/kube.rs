//! A real Kubernetes API server on a real etcd, without kubelet, scheduler and controllers. Killed when dropped.
//!
//! `scripts/kubernetes` builds it and kubectl once, and stores them outside of `target/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::certificates::Certificates;
use super::etcd::{Etcd, free_port};
use super::{can_run, within};

pub const ADMIN: &str = "admin-token";
/// The service account that the follower uses.
pub const ACCOUNT: &str = "calico-accountant";

pub struct Kube {
    child: Option<Child>,
    pub etcd: Etcd,
    pub certificates: Certificates,
    pub port: u16,
    admin: Agent,
}

impl Kube {
    /// Starts an API server. Returns `None` with a message if it has not been built or etcd is missing.
    pub fn start() -> Option<Self> {
        Self::on(Etcd::plain()?)
    }

    /// Starts an API server on an etcd that may already contain objects.
    pub fn on(etcd: Etcd) -> Option<Self> {
        if !can_run("a test with a real Kubernetes API server", built(), "scripts/kubernetes to have been run") {
            return None;
        }
        let certificates = Certificates::new(None);
        let mut kube = Kube { child: None, etcd, certificates, port: free_port(), admin: unverified() };
        fs::write(kube.file("tokens"), format!("{ADMIN},admin,1,system:masters\n")).unwrap();
        let rules = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["ResponseStarted"],"rules":[{"level":"Metadata"}]}"#;
        fs::write(kube.file("audit-rules"), rules).unwrap();
        kube.start_again();
        Some(kube)
    }

    /// Returns a path in the directory of the certificates.
    pub fn file(&self, name: &str) -> PathBuf {
        self.certificates.ca().with_file_name(name)
    }

    /// Starts it after [`Kube::kill`] on the same port. Returns when it serves.
    pub fn start_again(&mut self) {
        self.launch(&[]);
        self.wait_until_ready();
    }

    /// Starts it with further arguments, without waiting.
    pub fn launch(&mut self, args: &[&str]) {
        let log = File::create(self.file("apiserver.log")).unwrap();
        let (cert, key) = (self.certificates.server_cert(), self.certificates.server_key());
        let mut command = Command::new(program("kube-apiserver"));
        command.args(["--etcd-servers", &self.etcd.url(), "--secure-port", &self.port.to_string()]);
        command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]);
        command.arg("--tls-cert-file").arg(&cert).arg("--tls-private-key-file").arg(&key);
        command.arg("--client-ca-file").arg(self.certificates.ca()).arg("--token-auth-file").arg(self.file("tokens"));
        command.arg("--service-account-issuer=https://test").arg("--service-account-key-file").arg(&cert);
        command.arg("--service-account-signing-key-file").arg(&key).args(["--service-cluster-ip-range=10.0.0.0/24"]);
        command.args(["--authorization-mode=RBAC", "--shutdown-delay-duration=0s", "--storage-media-type=application/json"]);
        command.arg("--audit-policy-file").arg(self.file("audit-rules")).arg("--audit-log-path").arg(self.file("audit.log"));
        self.child = Some(command.args(args).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub fn wait_until_ready(&self) {
        let ready = || self.try_call("GET", "/readyz", None).is_ok_and(|(status, _)| status == 200);
        within(Duration::from_secs(90), "the API server is ready", ready);
    }

    /// Kills it, like a power failure.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops or continues its process with a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(child, signal).unwrap();
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Sends a request as the administrator. Returns status and text of the answer.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String), ureq::Error> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url()));
        let request = request.header("Authorization", format!("Bearer {ADMIN}")).header("Content-Type", content);
        let request = request.body(body.map(Value::to_string).unwrap_or_default())?;
        let mut response = self.admin.run(request)?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// Sends a request as the administrator that must succeed.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, text) = self.try_call(method, path, Some(body).filter(|body| !body.is_null())).unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Reports whether there is nothing at this path.
    pub fn gone(&self, path: &str) -> bool {
        self.try_call("GET", path, None).is_ok_and(|(status, _)| status == 404)
    }

    /// Creates a namespace with its service account, which controllers would do.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        self.call("POST", "/api/v1/namespaces", &json!({"metadata": {"name": name}}));
        self.service_account(name, "default");
    }

    #[track_caller]
    pub fn service_account(&self, namespace: &str, name: &str) {
        let body = json!({"metadata": {"name": name}});
        self.call("POST", &format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &body);
    }

    /// Deletes a namespace and its content, which its controller would do.
    #[track_caller]
    pub fn delete_namespace(&self, name: &str) {
        self.call("DELETE", &format!("/api/v1/namespaces/{name}"), &Value::Null);
        for plural in ["pods", "serviceaccounts"] {
            self.call("DELETE", &format!("/api/v1/namespaces/{name}/{plural}?gracePeriodSeconds=0"), &Value::Null);
        }
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}});
        self.call("PUT", &format!("/api/v1/namespaces/{name}/finalize"), &body);
    }

    /// Creates the follower's service account, lets it list and watch the `resources` (`group/plural`), and returns a token.
    #[track_caller]
    pub fn account(&self, resources: &[&str]) -> String {
        self.service_account("kube-system", ACCOUNT);
        self.grant(resources);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT});
        let subjects = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "kube-system"}]);
        let body = json!({"metadata": {"name": ACCOUNT}, "roleRef": role, "subjects": subjects});
        self.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &body);
        self.token()
    }

    /// Sets what the account may list and watch.
    #[track_caller]
    pub fn grant(&self, resources: &[&str]) {
        let rule = |resource: &&str| {
            let (group, plural) = resource.split_once('/').unwrap();
            json!({"apiGroups": [group], "resources": [plural], "verbs": ["list", "watch"]})
        };
        let rules: Vec<_> = resources.iter().map(rule).collect();
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let body = json!({"metadata": {"name": ACCOUNT}, "rules": rules});
        if self.try_call("GET", &format!("{roles}/{ACCOUNT}"), None).unwrap().0 == 404 {
            self.call("POST", roles, &body);
        } else {
            self.call("PUT", &format!("{roles}/{ACCOUNT}"), &body);
        }
    }

    /// Reports whether the account may do this.
    pub fn allowed(&self, verb: &str, group: &str, resource: &str) -> bool {
        self.account_may("kube-system", verb, &format!("{resource}.{group}"))
    }

    /// Reports whether a namespace's account may do this there to `resource.group/name`. `group` and `name` may be missing.
    pub fn account_may(&self, namespace: &str, verb: &str, what: &str) -> bool {
        let (kind, name) = what.split_once('/').unwrap_or((what, ""));
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        let asked = json!({"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace});
        let groups = ["system:serviceaccounts", "system:authenticated"];
        let spec = json!({"user": format!("system:serviceaccount:{namespace}:{ACCOUNT}"), "groups": groups, "resourceAttributes": asked});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        self.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)["status"]["allowed"] == true
    }

    /// Returns a new token of the account that is valid for 10 minutes, the minimum.
    #[track_caller]
    pub fn token(&self) -> String {
        self.token_of(ACCOUNT)
    }

    /// Returns a new token of another account in kube-system.
    #[track_caller]
    pub fn token_of(&self, account: &str) -> String {
        let body = json!({"spec": {"expirationSeconds": 600}});
        let answer = self.call("POST", &format!("/api/v1/namespaces/kube-system/serviceaccounts/{account}/token"), &body);
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Returns a kubeconfig with this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        let cluster = json!({"server": self.url(), "certificate-authority": self.certificates.ca()});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    /// Defines a kind of object with any content.
    #[track_caller]
    pub fn define(&self, group: &str, version: &str, kind: &str, namespaced: bool) {
        let plural = plural(kind);
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let body = json!({
            "metadata": {"name": format!("{plural}.{group}"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
            "spec": {
                "group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        });
        self.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &body);
        let served = || self.try_call("GET", &format!("/apis/{group}/{version}/{plural}"), None).is_ok_and(|(status, _)| status == 200);
        within(Duration::from_secs(20), "the new kind is served", served);
    }

    /// Returns the number of the account's requests so far, by verb and resource (`list pods`).
    pub fn asked(&self) -> BTreeMap<String, usize> {
        let log = fs::read_to_string(self.file("audit.log")).unwrap_or_default();
        let mut asked = BTreeMap::new();
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let user = event["user"]["username"].as_str().unwrap_or_default();
            if user.ends_with(ACCOUNT) && event["stage"] == "RequestReceived" {
                let what = event["objectRef"]["resource"].as_str().or(event["requestURI"].as_str()).unwrap_or_default();
                *asked.entry(format!("{} {what}", event["verb"].as_str().unwrap_or_default())).or_default() += 1;
            }
        }
        asked
    }
}

/// Returns an agent that does not verify certificates.
pub fn unverified() -> Agent {
    let tls = TlsConfig::builder().disable_verification(true);
    let tls = tls.unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider())).build();
    Agent::config_builder().tls_config(tls).proxy(None).http_status_as_error(false).max_idle_connections(0).build().new_agent()
}

/// `NetworkPolicy` → `networkpolicies`.
pub fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    if kind.ends_with('s') {
        return kind;
    }
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

/// Reports whether `scripts/kubernetes` has been run.
pub fn built() -> bool {
    program("kube-apiserver").exists() && program("kubectl").exists()
}

/// Returns the path of a program from `scripts/kubernetes`.
pub fn program(name: &str) -> PathBuf {
    super::built::program("kubernetes", "k8s.io/kubernetes", name)
}

impl Drop for Kube {
    fn drop(&mut self) {
        self.kill();
    }
}
