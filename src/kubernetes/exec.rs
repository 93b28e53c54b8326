//! Credential plugins (`client.authentication.k8s.io`): runs the program of a kubeconfig, bounded in time and output, and parses its
//! answer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::timestamp;
use crate::config::{self, ExecPlugin, KubernetesConfig, Secret};
use crate::datastore::error::{Error, ErrorKind};
use crate::os::child::{self, ChildError};

/// The largest output of a plugin in bytes. A token and a certificate have some kilobytes.
const LARGEST_ANSWER: usize = 1 << 20;
/// The maximum that is shown of a plugin's error output, in characters.
const SHOWN_COMPLAINT: usize = 300;

#[derive(Clone, PartialEq)]
pub(super) struct Issued {
    pub token: Option<Secret>,
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// If `None`, the credentials are valid until the server refuses them.
    pub expires: Option<SystemTime>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Issued {
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Runs the plugin for the cluster of `config`, which has the CA `ca`.
pub(super) fn run(plugin: &ExecPlugin, config: &KubernetesConfig, ca: Option<&[u8]>, limit: Duration) -> Result<Issued, Error> {
    let failed = |why| Error::new(ErrorKind::Access, format!("credential plugin {}: {why}", plugin.command.display()));
    let program = find(&plugin.command).ok_or_else(|| failed(format!("there is no such program{}", hint(plugin))))?;
    let mut command = Command::new(program);
    command.args(plugin.args.iter().map(Secret::reveal));
    // It gets this process's environment, except for passwords and tokens that are not its own.
    config::secret_variables().for_each(|name| _ = command.env_remove(name));
    command.env("KUBERNETES_EXEC_INFO", request(plugin, config, ca).to_string());
    command.envs(plugin.env.iter().map(|(name, value)| (name, value.reveal())));
    let mut output = Vec::new();
    let run = child::run_command(&mut command, limit, &mut |piece| {
        output.extend_from_slice(piece);
        if output.len() <= LARGEST_ANSWER { Ok(()) } else { Err(format!("it printed more than {LARGEST_ANSWER} bytes")) }
    });
    run.map_err(|error| failed(complaint(&error, plugin)))?;
    answer(&output, &plugin.api_version).map_err(failed)
}

/// Returns a path unchanged, and looks up a plain name on the search path.
fn find(command: &Path) -> Option<PathBuf> {
    match command.components().count() {
        1 if !command.is_absolute() => child::find(command.to_str()?, &std::env::var_os("PATH")?),
        _ => command.is_file().then(|| command.to_owned()),
    }
}

fn hint(plugin: &ExecPlugin) -> String {
    plugin.install_hint.as_ref().map(|hint| format!(" ({})", hint.split_whitespace().collect::<Vec<_>>().join(" "))).unwrap_or_default()
}

fn complaint(error: &ChildError, plugin: &ExecPlugin) -> String {
    let text = error.to_string();
    let end = text.char_indices().nth(SHOWN_COMPLAINT).map_or(text.len(), |(end, _)| end);
    let hint = if matches!(error, ChildError::Start(_)) { hint(plugin) } else { String::new() };
    format!("{}{hint}", &text[..end])
}

/// Returns the content of `KUBERNETES_EXEC_INFO`, the plugin's input.
fn request(plugin: &ExecPlugin, config: &KubernetesConfig, ca: Option<&[u8]>) -> Value {
    let mut spec = json!({ "interactive": false });
    if plugin.provide_cluster_info {
        let mut cluster = json!({ "server": config.server });
        let mut say = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                cluster[name] = value;
            }
        };
        say("tls-server-name", config.tls_server_name.as_ref().map(|name| json!(name)));
        say("insecure-skip-tls-verify", config.insecure.then_some(Value::Bool(true)));
        say("certificate-authority-data", ca.map(|ca| json!(STANDARD.encode(ca))));
        say("proxy-url", config.proxy.as_ref().map(|proxy| json!(proxy.reveal())));
        say("config", plugin.cluster_config.clone());
        spec["cluster"] = cluster;
    }
    json!({ "kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Parses a plugin's output. No part of the output goes into the error, because it contains the secret.
fn answer(output: &[u8], api_version: &str) -> Result<Issued, String> {
    let not_one = |error: serde_json::Error| format!("its output is not an ExecCredential (line {})", error.line());
    let credential: ExecCredential = serde_json::from_slice(output).map_err(not_one)?;
    if credential.kind != "ExecCredential" {
        return Err("its output is not an ExecCredential (kind)".into());
    }
    if credential.api_version != api_version {
        return Err(format!("it answered in another apiVersion than {api_version}"));
    }
    let status = credential.status.ok_or("its output has no status")?;
    let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = not_empty(status.token);
    if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err("it gave a malformed token".into());
    }
    let client = match (not_empty(status.client_certificate_data), not_empty(status.client_key_data)) {
        (Some(cert), Some(key)) => Some((cert.into_bytes(), key.into_bytes())),
        (None, None) => None,
        _ => return Err("it gave only one of client certificate and key".into()),
    };
    if token.is_none() && client.is_none() {
        return Err("it gave neither a token nor a client certificate".into());
    }
    let time = |text: String| timestamp::parse(&text).ok_or("its expirationTimestamp is not a time");
    let expires = not_empty(status.expiration_timestamp).map(time).transpose()?;
    Ok(Issued { token: token.map(Secret::new), client, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn of(status: &str) -> Result<Issued, String> {
        answer(format!(r#"{{"kind":"ExecCredential","apiVersion":"{V1}","status":{status}}}"#).as_bytes(), V1)
    }

    #[test]
    fn answers() {
        let issued = of(r#"{"token":"t","expirationTimestamp":"2026-08-20T10:00:00Z"}"#).unwrap();
        assert_eq!(issued.token.as_ref().map(Secret::reveal), Some("t"));
        let expires = issued.expires.unwrap();
        assert!(issued.is_valid(expires - Duration::from_secs(1)) && !issued.is_valid(expires));
        let issued = of(r#"{"clientCertificateData":"c","clientKeyData":"k","token":"","new":1}"#).unwrap();
        assert_eq!((issued.client.clone(), issued.token.clone(), issued.expires), (Some((b"c".to_vec(), b"k".to_vec())), None, None));
        assert!(issued.is_valid(SystemTime::now() + Duration::from_secs(1 << 40)));
    }

    #[test]
    fn bad_answers_are_not_repeated() {
        for (output, expected) in [
            ("hunter2", "its output is not an ExecCredential (line 1)"),
            ("", "its output is not an ExecCredential (line 1)"),
            (r#"{"kind":"hunter2"}"#, "its output is not an ExecCredential (kind)"),
            (
                r#"{"kind":"ExecCredential","apiVersion":"hunter2"}"#,
                "it answered in another apiVersion than client.authentication.k8s.io/v1",
            ),
            (&format!(r#"{{"kind":"ExecCredential","apiVersion":"{V1}"}}"#), "its output has no status"),
        ] {
            assert_eq!(answer(output.as_bytes(), V1).unwrap_err(), expected);
        }
        for (status, expected) in [
            ("{}", "it gave neither a token nor a client certificate"),
            (r#"{"token":["hunter2"]}"#, "its output is not an ExecCredential (line 1)"),
            (r#"{"token":"hunter2\nX: y"}"#, "it gave a malformed token"),
            (r#"{"clientKeyData":"hunter2"}"#, "it gave only one of client certificate and key"),
            (r#"{"token":"hunter2","expirationTimestamp":"soon"}"#, "its expirationTimestamp is not a time"),
        ] {
            assert_eq!(of(status).unwrap_err(), expected);
        }
    }
}
