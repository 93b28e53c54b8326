//! Passwords, tokens and keys are in no output: not in the log at its most verbose level, not in errors, not in `--help`, not in any page.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::get;
use crate::program::{Program, await_some, command};
use crate::support::certificates::Certificates;
use crate::support::etcd::{Etcd, Options};
use crate::support::fakes::Fakes;

const PASSWORD: &str = "pa55-Word-of-the-reader";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.t0ken-Of-The-Service-Account.c2ln";

/// The forms in which a text may appear: as it is, in base64 at any offset, in hexadecimal digits.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), secret.bytes().map(|byte| format!("{byte:02x}")).collect()];
    for skipped in 0..3 {
        let encoded = STANDARD.encode(&secret[skipped..]);
        forms.push(encoded.trim_end_matches('=')[..encoded.len() / 2].to_owned());
    }
    // A hex dump has a few bytes on each line.
    forms.extend(secret.as_bytes().windows(12).map(|bytes| bytes.iter().map(|byte| format!("{byte:02x} ")).collect()));
    forms
}

/// Everything that a running program shows: its log and its pages.
fn outputs(program: &Program, port: u16) -> String {
    let pages = ["/", "/metrics", "/readyz", "/healthz", "/nope", "/api/v1/status", "/api/v1/workloads", "/api/v1/policies"];
    let pages = pages.map(|path| get(port, path).unwrap().text().to_owned());
    [program.log().join("\n"), pages.join("\n")].join("\n")
}

#[track_caller]
fn hidden(output: &str, secrets: &[&str]) {
    assert!(output.len() > 100, "{output}");
    for secret in secrets {
        for form in forms(secret) {
            let line = output.lines().find(|line| line.to_lowercase().contains(&form.to_lowercase()));
            assert_eq!(line, None, "shows {form}");
        }
    }
}

/// Runs the program at its most verbose level until it logs `until`. Returns its outputs, and that of `--help` with the same environment.
fn run(environment: &[(&str, &str)], until: &str) -> String {
    let mut shown = String::new();
    for format in ["logfmt", "json"] {
        let talkative = || {
            let mut command = command();
            command.env("LOG_LEVEL", "trace").env("LOG_FORMAT", format).envs(environment.iter().copied());
            command
        };
        let program = Program::start(talkative());
        let port = program.port();
        await_some(|| outputs(&program, port).contains(until).then_some(()), || format!("{until:?} in {}", outputs(&program, port)));
        shown += &outputs(&program, port);
        let mut help = talkative();
        help.arg("--help");
        shown += &String::from_utf8(help.output().unwrap().stdout).unwrap();
    }
    shown
}

#[test]
fn etcds_password_and_key() {
    let Some(etcd) = Etcd::start(Options { tls: Some(Certificates::new(None)), ..Options::default() }) else { return };
    etcd.enable_auth("reader", PASSWORD, "/calico/resources/v3/projectcalico.org/");
    let certificates = etcd.certificates();
    let key = fs::read_to_string(certificates.client_key()).unwrap();
    let key_line = key.lines().nth(1).unwrap();
    let [ca, cert, key_file] =
        [certificates.ca(), certificates.client_cert(), certificates.client_key()].map(|path| path.display().to_string());
    let url = etcd.url();
    let with = |password| {
        [
            ("ETCD_ENDPOINTS", url.as_str()),
            ("ETCD_CA_CERT_FILE", &ca),
            ("ETCD_CERT_FILE", &cert),
            ("ETCD_KEY_FILE", &key_file),
            ("ETCD_USERNAME", "reader"),
            ("ETCD_PASSWORD", password),
        ]
    };
    hidden(&run(&with(PASSWORD), "calico_accountant_datastore_up 1"), &[PASSWORD, key_line]);
    let wrong = "wr0ng-Pa55word-of-reader";
    hidden(&run(&with(wrong), "refuses user"), &[wrong, key_line]);
    // Nor does a failing start.
    let mut bad = command();
    bad.env("ETCD_ENDPOINTS", format!("https://reader:{PASSWORD}@etcd:2379"));
    let output = bad.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    hidden(&String::from_utf8(output.stderr).unwrap(), &[PASSWORD]);
}

/// An API server that refuses every request and repeats its text in the answer. Returns its URL, and what was sent to it.
fn parrot() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, heard) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Mutex::new(String::new())));
    let all = Arc::clone(&heard);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = String::new();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(|line| head += &format!("{line}\n"));
            *all.lock().unwrap() += &head;
            let body = json!({ "kind": "Status", "code": 403, "reason": "Forbidden", "message": format!("you sent {head}") }).to_string();
            let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            _ = stream.write_all((answer + &body).as_bytes());
            _ = stream.read(&mut [0; 1]);
        }
    });
    (url, heard)
}

/// A kubeconfig for this user, and a program that may be its plugin.
fn kubeconfig(fakes: &Fakes, server: &str, user: &Value) -> String {
    let config = json!({
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    fakes.file("kubeconfig", &config.to_string()).display().to_string()
}

#[test]
fn kubernetes_tokens_passwords_and_what_plugins_are_given() {
    let (server, heard) = parrot();
    let fakes = Fakes::new();
    let argument = "argument-0f-the-plugin";
    fakes.set(
        "plugin",
        &format!("echo {TOKEN} >&2\n[ \"$1\" = '{argument}' ] && [ \"$KEY\" = '{PASSWORD}' ] || exit 1\necho '{}'", {
            json!({ "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": { "token": TOKEN } })
        }),
    );
    fakes.set("failing", "echo no >&2; exit 3");
    let token_file = fakes.file("token", TOKEN).display().to_string();
    let plugin = |name: &str| {
        let command = fakes.path().join(name).display().to_string();
        let env = json!([{ "name": "KEY", "value": PASSWORD }]);
        json!({ "exec": { "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": [argument], "env": env, "interactiveMode": "Never" } })
    };
    let basic = STANDARD.encode(format!("reader:{PASSWORD}"));
    for (user, sent, until) in [
        (json!({ "token": TOKEN }), Some(TOKEN), "403"),
        (json!({ "tokenFile": token_file }), Some(TOKEN), "403"),
        (json!({ "username": "reader", "password": PASSWORD }), Some(basic.as_str()), "403"),
        (plugin("plugin"), Some(TOKEN), "403"),
        (plugin("failing"), None, "exit code 3"),
    ] {
        let file = kubeconfig(&fakes, &server, &user);
        heard.lock().unwrap().clear();
        let shown = run(&[("DATASTORE_TYPE", "kubernetes"), ("KUBECONFIG", &file)], until);
        if let Some(sent) = sent {
            assert!(heard.lock().unwrap().contains(sent), "the server got it");
        }
        hidden(&shown, &[TOKEN, PASSWORD, &basic, argument]);
    }
    let environment = [("DATASTORE_TYPE", "kubernetes"), ("K8S_API_ENDPOINT", &server), ("K8S_API_TOKEN", TOKEN)];
    hidden(&run(&environment, "403"), &[TOKEN]);
}

/// The error about a broken kubeconfig does not repeat its text.
#[test]
fn broken_kubeconfigs() {
    let fakes = Fakes::new();
    for text in [
        format!("users: [{{name: u, user: {{token: {TOKEN}}}"),
        format!("users: [{{name: u, user: {{token: [{TOKEN}]}}}}]"),
        format!("users: [{{name: u, user: {{username: reader, password: {{a: '{PASSWORD}'}}}}}}]"),
        TOKEN.to_owned(),
    ] {
        let mut bad: Command = command();
        bad.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", fakes.file("kubeconfig", &text));
        let output = bad.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("kubeconfig"), "{stderr}");
        hidden(&format!("{stderr:200}"), &[TOKEN, PASSWORD]);
    }
}
