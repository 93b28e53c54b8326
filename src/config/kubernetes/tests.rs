//! Tests of the rules, one table row each, with invented environments and files.

use super::*;
use crate::config::Datastore;
use crate::config::tests::{CERTIFICATE, KEY, parsed};

/// [`CERTIFICATE`] and [`KEY`] in base64.
const CERTIFICATE_DATA: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BQT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
const KEY_DATA: &str = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1BQT0KLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=";

const ACCOUNT: [(&str, &str); 2] =
    [("/var/run/secrets/kubernetes.io/serviceaccount/token", "t"), ("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", CERTIFICATE)];
const SERVICE: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn run(variables: Pairs<'_>, files: Pairs<'_>) -> Result<(KubernetesConfig, Vec<Remark>), String> {
    let variables = [("NODENAME", "n"), ("DATASTORE_TYPE", "kubernetes")].iter().chain(variables).copied().collect();
    let files = [("/ca", CERTIFICATE), ("/cert", CERTIFICATE), ("/key", KEY)].iter().chain(files).copied().collect();
    let (config, remarks) = parsed(&variables, &files, &[])?;
    match config.datastore {
        Datastore::Kubernetes(config) => Ok((*config, remarks)),
        other => panic!("{other:?}"),
    }
}

fn config(variables: Pairs<'_>, files: Pairs<'_>) -> KubernetesConfig {
    run(variables, files).unwrap_or_else(|error| panic!("{variables:?}: {error}")).0
}

/// Returns a kubeconfig with one cluster and one user, each in flow style.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    )
}

fn of(cluster: &str, user: &str, variables: Pairs<'_>) -> Result<KubernetesConfig, String> {
    let variables = [&[("KUBECONFIG", "/k")], variables].concat();
    run(&variables, &[("/k", &kubeconfig(cluster, user))]).map(|(config, _)| config)
}

fn file(path: &str) -> Option<Pem> {
    Some(Pem::File(path.into()))
}

fn token(token: &str) -> Authentication {
    Authentication::Token(Secret::new(token))
}

#[test]
fn in_a_pod() {
    let token_file = Authentication::TokenFile(ACCOUNT[0].0.into(), None);
    let pod = config(&SERVICE, &ACCOUNT);
    assert_eq!((pod.server.as_str(), pod.ca, &pod.authentication), ("https://10.0.0.1:443", file(ACCOUNT[1].0), &token_file));
    assert_eq!((pod.client, pod.insecure, pod.origin.as_str()), (None, false, "the pod's service account"));
    let (without_ca, remarks) = run(&SERVICE, &ACCOUNT[..1]).unwrap();
    assert_eq!(without_ca.ca, None);
    assert!(remarks.iter().any(|remark| remark.level == log::Level::Warn && remark.text.contains("ca.crt")), "{remarks:?}");
    let v6 = config(&[("KUBERNETES_SERVICE_HOST", "fd00::1"), SERVICE[1]], &ACCOUNT);
    assert_eq!(v6.server, "https://[fd00::1]:443");
    // A Service named kubernetes-service hides the port.
    let hidden = [SERVICE[0], ("KUBERNETES_SERVICE_PORT", "tcp://10.0.0.9:80")];
    assert_eq!(config(&hidden, &ACCOUNT).server, "https://10.0.0.1:443");
    assert_eq!(config(&[&hidden[..], &[("KUBERNETES_SERVICE_PORT_HTTPS", "6443")]].concat(), &ACCOUNT).server, "https://10.0.0.1:6443");
    // Of the variables that override a kubeconfig, only a token has an effect here too.
    for name in ["CALICO_K8SAPITOKEN", "K8S_API_TOKEN", "CALICO_K8S_API_TOKEN"] {
        assert_eq!(config(&[SERVICE[0], SERVICE[1], (name, "mine")], &ACCOUNT).authentication, token("mine"), "{name}");
    }
    for (variables, files) in [(&SERVICE[..1], &ACCOUNT[..]), (&SERVICE[1..], &ACCOUNT), (&SERVICE, &ACCOUNT[1..])] {
        assert!(run(variables, files).unwrap_err().contains("says where the API server is"));
    }
}

#[test]
fn the_order_of_sources() {
    let one = kubeconfig("server: 'https://one'", "");
    let home = [("/h/.kube/config", kubeconfig("server: 'https://home'", ""))];
    let files: Vec<(&str, &str)> = ACCOUNT.into_iter().chain([("/k", one.as_str()), (home[0].0, home[0].1.as_str())]).collect();
    for (variables, server) in [
        (&[][..], "https://10.0.0.1:443"),
        (&[("HOME", "/h")], "https://home"),
        (&[("HOME", "/elsewhere")], "https://10.0.0.1:443"),
        (&[("HOME", "/h"), ("KUBECONFIG", "/k")], "https://one"),
        (&[("HOME", "/h"), ("KUBECONFIG", "")], "https://home"),
        (&[("CALICO_KUBECONFIG", "/k")], "https://one"),
        (&[("HOME", "/h"), ("K8S_API_ENDPOINT", "https://api/")], "https://api"),
        (&[("KUBECONFIG", "/k"), ("K8S_API_ENDPOINT", "https://api")], "https://api"),
    ] {
        let variables = [&SERVICE, variables].concat();
        assert_eq!(config(&variables, &files).server, server, "{variables:?}");
    }
    // A server alone is anonymous. The service account is not used with it.
    assert_eq!(config(&[SERVICE[0], SERVICE[1], ("K8S_API_ENDPOINT", "https://api")], &files).authentication, Authentication::None);
}

#[test]
fn several_files_are_merged_and_some_may_be_missing() {
    let first = "current-context: x\nclusters: [{name: c, cluster: {server: 'https://first'}}]\n";
    let second = kubeconfig("server: 'https://second', tls-server-name: n", "token: t");
    let files = [("/a/k", first), ("/b/k", second.as_str())];
    let (merged, remarks) = run(&[("KUBECONFIG", "/a/k::/none:/b/k")], &files).unwrap();
    assert_eq!((merged.server.as_str(), merged.tls_server_name, merged.authentication), ("https://first", None, token("t")));
    assert!(remarks.iter().any(|remark| remark.text == "KUBECONFIG: \"/none\" does not exist"), "{remarks:?}");
    let error = run(&[("KUBECONFIG", "/none")], &files).unwrap_err();
    assert_eq!(error, "KUBECONFIG: cannot read \"/none\": entity not found");
    let error = run(&[("KUBECONFIG", "/a/k:/bad")], &[files[0], ("/bad", "users:\n- name: a\n  user: hunter2\n")]).unwrap_err();
    assert_eq!(error, "KUBECONFIG: /bad:3: users[0].user: expected a map");
    let error = run(&[("HOME", "/h")], &[("/h/.kube/config", "clusters: 1")]).unwrap_err();
    assert!(error.starts_with("/h/.kube/config:1: clusters: expected"), "{error}");
}

#[test]
fn contexts() {
    let text = "clusters: [{name: c, cluster: {server: 'https://c'}}, {name: d, cluster: {server: 'https://d'}}]\n\
                contexts: [{name: x, context: {cluster: c}}, {name: y, context: {cluster: d}}, {name: lost, context: {cluster: e}}, \
                {name: nobody, context: {cluster: c, user: u}}]\n";
    let run = |current: &str, variables: Pairs<'_>| {
        let variables = [&[("KUBECONFIG", "/k")], variables].concat();
        run(&variables, &[("/k", &format!("{text}current-context: {current}\n"))]).map(|(config, _)| config.server)
    };
    assert_eq!(run("x", &[]).as_deref(), Ok("https://c"));
    assert_eq!(run("x", &[("K8S_CURRENT_CONTEXT", "y")]).as_deref(), Ok("https://d"));
    for (current, variables, expected) in [
        ("z", &[][..], "there is no context \"z\", which current-context names"),
        ("x", &[("K8S_CURRENT_CONTEXT", "z")], "there is no context \"z\", which K8S_CURRENT_CONTEXT names"),
        ("lost", &[], "there is no cluster \"e\", which context \"lost\" names"),
        ("nobody", &[], "there is no user \"u\", which context \"nobody\" names"),
    ] {
        assert_eq!(run(current, variables), Err(format!("KUBECONFIG \"/k\": {expected}")));
    }
    // Without a context, the kubeconfig selects no cluster.
    assert!(run("''", &[]).unwrap_err().contains("says where the API server is"));
}

#[test]
fn variables_go_over_the_kubeconfig() {
    let cluster = format!("server: 'https://c', tls-server-name: n, certificate-authority-data: {CERTIFICATE_DATA}");
    let user = format!("token: t, client-certificate-data: {CERTIFICATE_DATA}, client-key-data: {KEY_DATA}");
    let of = |variables: Pairs<'_>| of(&cluster, &user, variables).unwrap();
    let inline = |text: &str| Pem::Inline(text.as_bytes().to_vec());
    let plain = of(&[]);
    assert_eq!((plain.ca.clone(), plain.tls_server_name.as_deref()), (Some(inline(CERTIFICATE)), Some("n")));
    assert_eq!(plain.client, Some((inline(CERTIFICATE), inline(KEY))));
    assert_eq!(plain.authentication, token("t"));
    let other = of(&[("K8S_API_ENDPOINT", "https://d:6443/k8s/c/")]);
    assert_eq!((other.server.as_str(), other.tls_server_name), ("https://d:6443/k8s/c", None));
    assert_eq!(of(&[("K8S_CA_FILE", "/ca")]).ca, file("/ca"));
    assert_eq!(of(&[("K8S_CERT_FILE", "/cert")]).client, Some((Pem::File("/cert".into()), inline(KEY))));
    assert_eq!(of(&[("K8S_KEY_FILE", "/key")]).client, Some((inline(CERTIFICATE), Pem::File("/key".into()))));
    assert_eq!(of(&[("CALICO_K8SAPITOKEN", "a"), ("K8S_API_TOKEN", "b")]).authentication, token("a"));
    let insecure = of(&[("K8S_INSECURE_SKIP_TLS_VERIFY", "true")]);
    assert_eq!((insecure.insecure, insecure.ca), (true, None));
    assert!(!of(&[("K8S_INSECURE_SKIP_TLS_VERIFY", "F")]).insecure);
}

#[test]
fn who_we_are() {
    let file = |token: Option<&str>| Authentication::TokenFile("/t".into(), token.map(Secret::new));
    for (user, expected) in [
        ("", Authentication::None),
        ("token: t", token("t")),
        ("tokenFile: t", file(None)),
        ("token: t, tokenFile: /t", file(Some("t"))),
        ("username: u, password: p", Authentication::Basic(Secret::new("u"), Secret::new("p"))),
        ("token: t, auth-provider: {name: oidc}", token("t")),
        ("token: t, exec: {command: c}", token("t")),
    ] {
        assert_eq!(of("server: 'https://c'", user, &[]).unwrap().authentication, expected, "{user}");
    }
    let overridden = of("server: 'https://c'", "tokenFile: /t", &[("K8S_API_TOKEN", "o")]).unwrap();
    assert_eq!(overridden.authentication, token("o"));
}

#[test]
fn plugins() {
    let user = "exec: {apiVersion: client.authentication.k8s.io/v1, command: bin/get, args: [token, '--for=a'], \
                env: [{name: A, value: b}], provideClusterInfo: true, interactiveMode: IfAvailable, installHint: try harder}";
    let cluster = "server: 'https://c', extensions: [{name: client.authentication.k8s.io/exec, extension: {audience: x}}, {name: y}]";
    let Authentication::Exec(plugin) = of(cluster, user, &[]).unwrap().authentication else { panic!("not a plugin") };
    assert_eq!((plugin.command.as_path(), plugin.args.len(), plugin.env.len()), (Path::new("/bin/get"), 2, 1));
    assert!(plugin.provide_cluster_info);
    assert_eq!(plugin.cluster_config, Some(serde_json::json!({ "audience": "x" })));
    assert_eq!(plugin.install_hint.as_deref(), Some("try harder"));
}

#[test]
fn what_contradicts_itself_or_is_not_supported() {
    let v1 = "apiVersion: client.authentication.k8s.io/v1";
    let refused = |cluster: &str, user: &str, variables: Pairs<'_>, expected: &str| {
        let error = of(cluster, user, variables).unwrap_err();
        assert_eq!(error, format!("KUBECONFIG \"/k\": {expected}"), "{cluster} {user}");
    };
    let unchecked = "a CA, and not to check the server's certificate (insecure-skip-tls-verify): only one of the two";
    for (cluster, variables, expected) in [
        ("proxy-url: 'http://p'", &[][..], "no server for the cluster"),
        ("", &[("K8S_CA_FILE", "/ca")], "no server for the cluster"),
        ("server: 'ftp://c'", &[], "server \"ftp://c\" is not allowed: an http:// or https:// URL"),
        ("server: 'https://u:hunter2@c'", &[], "no user or password in the server's URL"),
        ("server: 'https://c', insecure-skip-tls-verify: true, certificate-authority: /ca", &[], unchecked),
        ("server: 'https://c'", &[("K8S_CA_FILE", "/none")], "cannot read \"/none\": entity not found"),
        ("server: 'https://c'", &[("K8S_CA_FILE", "/key")], "no certificate in PEM form in \"/key\" (CA)"),
    ] {
        refused(cluster, "", variables, expected);
    }
    let both = "both client-certificate and client-certificate-data: only one of the two";
    let unknown = "exec: apiVersion \"\" is not supported, only client.authentication.k8s.io/v1 and client.authentication.k8s.io/v1beta1";
    let provider = "auth-provider \"gcp\" is not supported: use a token, a client certificate or an exec plugin";
    let always = "exec: interactiveMode \"Always\" is not supported: the exporter has no terminal";
    let mode = "exec: interactiveMode \"No\" is not allowed: one of Never, IfAvailable";
    let inline = "no unencrypted private key in PEM form in the kubeconfig (client key)";
    for (user, expected) in [
        ("client-certificate: /cert", "a client certificate without its key (client-key, K8S_KEY_FILE)"),
        ("client-certificate: /cert, client-certificate-data: MAA=", both),
        ("token: hunter2, username: u", "a token and a user name with password: only one of the two"),
        ("as: root", "impersonation (as) is not supported"),
        ("auth-provider: {name: gcp}", provider),
        ("exec: {command: c}", unknown),
        (&format!("exec: {{{v1}}}"), "exec: no command"),
        (&format!("exec: {{{v1}, command: c, interactiveMode: Always}}"), always),
        (&format!("exec: {{{v1}, command: c, interactiveMode: No}}"), mode),
        (&format!("exec: {{{v1}, command: c, env: [{{name: 'a=b'}}]}}"), "exec: a variable in env without a proper name"),
        ("client-certificate: /cert, client-key: /cert", "no unencrypted private key in PEM form in \"/cert\" (client key)"),
        ("client-certificate: /cert, client-key-data: MAA=", inline),
    ] {
        refused("server: 'https://c'", user, &[], expected);
    }
}

#[test]
fn servers_get_a_scheme() {
    for (server, ca, expected) in [
        ("c", "", "http://c"),
        ("c:6443", "/ca", "https://c:6443"),
        ("HTTPS://c//", "", "https://c"),
        ("https://[fd00::1]:6443/k8s/clusters/c-1", "", "https://[fd00::1]:6443/k8s/clusters/c-1"),
    ] {
        assert_eq!(config(&[("K8S_API_ENDPOINT", server), ("K8S_CA_FILE", ca)], &[]).server, expected, "{server}");
    }
}

#[test]
fn the_api_group() {
    for (variables, expected) in [
        (&[][..], ApiGroup::Discover),
        (&[("CALICO_API_GROUP", "")], ApiGroup::Discover),
        (&[("CALICO_API_GROUP", "ProjectCalico.org/v3")], ApiGroup::V3),
        (&[("CALICO_API_GROUP", "crd.projectcalico.org/v1")], ApiGroup::Crd),
        (&[("CALICO_CALICO_API_GROUP", ""), ("CALICO_API_GROUP", "projectcalico.org/v3")], ApiGroup::Discover),
    ] {
        let variables = [&[("K8S_API_ENDPOINT", "https://c")], variables].concat();
        assert_eq!(config(&variables, &[]).api_group, expected, "{variables:?}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let data = format!("client-certificate-data: {CERTIFICATE_DATA}, client-key-data: {KEY_DATA}");
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: c, args: [hunter2], env: [{name: A, value: hunter2}]}";
    for user in [data.as_str(), "token: hunter2", "username: u, password: hunter2", exec] {
        let shown = format!("{:?}", of("server: 'https://c', proxy-url: 'http://u:hunter2@p'", user, &[]).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("BEGIN"), "{shown}");
    }
}
