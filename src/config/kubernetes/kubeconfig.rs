//! Parses kubeconfig files → [`Kubeconfig`], and merges several by kubectl's rules. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};

/// The used parts of a kubeconfig, by name. Paths are relative to the program's folder, not to the file.
#[derive(Default)]
pub(super) struct Kubeconfig {
    pub clusters: BTreeMap<String, Cluster>,
    pub users: BTreeMap<String, User>,
    pub contexts: BTreeMap<String, Context>,
    pub current_context: Option<String>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case", expecting = "a map")]
pub(super) struct Cluster {
    pub server: Option<String>,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: Option<bool>,
    pub certificate_authority: Option<PathBuf>,
    pub certificate_authority_data: Option<Data>,
    pub proxy_url: Option<String>,
    pub extensions: Option<Vec<Extension>>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a map")]
pub(super) struct Extension {
    pub name: String,
    pub extension: Option<serde_json::Value>,
}

/// `users[].user`. Some of its keys are in camel case.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case", expecting = "a map")]
pub(super) struct User {
    pub client_certificate: Option<PathBuf>,
    pub client_certificate_data: Option<Data>,
    pub client_key: Option<PathBuf>,
    pub client_key_data: Option<Data>,
    pub token: Option<String>,
    #[serde(rename = "tokenFile")]
    pub token_file: Option<PathBuf>,
    #[serde(rename = "as")]
    pub impersonate: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub auth_provider: Option<AuthProvider>,
    pub exec: Option<Exec>,
}

/// `users[].user.auth-provider`: removed from Kubernetes' own client in 1.26.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a map")]
pub(super) struct AuthProvider {
    pub name: Option<String>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a map")]
pub(super) struct Exec {
    pub api_version: Option<String>,
    pub command: Option<PathBuf>,
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<Variable>>,
    pub install_hint: Option<String>,
    pub provide_cluster_info: Option<bool>,
    pub interactive_mode: Option<String>,
}

#[derive(Clone, PartialEq, Deserialize)]
#[serde(expecting = "a map")]
pub(super) struct Variable {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// `contexts[].context`. Its namespace is ignored.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "a map")]
pub(super) struct Context {
    pub cluster: Option<String>,
    pub user: Option<String>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Data(pub Vec<u8>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // With a visitor instead of a `String`, the error has the line of the value.
        deserializer.deserialize_str(Base64)
    }
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Data;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Data, E> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        // The value is not repeated, because it may be a key.
        STANDARD.decode(text).map(Data).map_err(|_| E::custom("not valid base64"))
    }
}

/// The file's format: lists of named objects.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", expecting = "a map")]
struct File {
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
    current_context: Option<String>,
}

macro_rules! named {
    ($($named:ident $field:ident: $kind:ty;)*) => {
        $(#[derive(Deserialize)]
        #[serde(expecting = "a map")]
        struct $named {
            name: String,
            #[serde(default, deserialize_with = "or_default")]
            $field: $kind,
        })*
    };
}

named! { NamedCluster cluster: Cluster; NamedUser user: User; NamedContext context: Context; }

/// `user:` without a value is a user without credentials.
fn or_default<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Parses a kubeconfig. Paths in it are relative to `folder`. An error begins with the line, if it is known, and never contains the value,
/// which may be a secret.
pub(super) fn parse(text: &[u8], folder: &Path) -> Result<Kubeconfig, String> {
    let file: Option<File> = match text.trim_ascii().is_empty() {
        true => None,
        false => yaml_serde::from_slice(text).map_err(|error| malformed(&error))?,
    };
    let file = file.unwrap_or_default();
    let mut config = Kubeconfig { current_context: file.current_context.filter(|name| !name.is_empty()), ..Kubeconfig::default() };
    for NamedCluster { name, mut cluster } in file.clusters.unwrap_or_default() {
        make_absolute(&mut cluster.certificate_authority, folder);
        insert(&mut config.clusters, "clusters", name, cluster)?;
    }
    for NamedUser { name, user } in file.users.unwrap_or_default() {
        insert(&mut config.users, "users", name, user.with_paths_from(folder))?;
    }
    for NamedContext { name, context } in file.contexts.unwrap_or_default() {
        insert(&mut config.contexts, "contexts", name, context)?;
    }
    Ok(config)
}

fn insert<T>(map: &mut BTreeMap<String, T>, kind: &str, name: String, value: T) -> Result<(), String> {
    if map.contains_key(&name) {
        return Err(format!(" two of its {kind} are called {name:?}"));
    }
    map.insert(name, value);
    Ok(())
}

/// Returns an error like `12: users[0].user.token: expected a string`. The value that the parser found is removed, because it may be the
/// token.
fn malformed(error: &yaml_serde::Error) -> String {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    let (place, found) = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|kind| text.find(kind).map(|start| (&text[..start], Some(&text[start..]))))
        .unwrap_or((text, None));
    let expected = found.map(|found| found.rsplit_once("expected ").map_or("not allowed", |(before, _)| &found[before.len()..]));
    let line = error.location().map(|location| format!("{}:", location.line())).unwrap_or_default();
    format!("{line} {place}{}", expected.unwrap_or_default()).replace('\n', " ")
}

impl User {
    fn with_paths_from(mut self, folder: &Path) -> Self {
        for path in [&mut self.client_certificate, &mut self.client_key, &mut self.token_file] {
            make_absolute(path, folder);
        }
        // A plain name is looked up on the search path instead.
        if let Some(exec) = &mut self.exec
            && exec.command.as_ref().is_some_and(|command| command.components().count() > 1)
        {
            make_absolute(&mut exec.command, folder);
        }
        self
    }
}

fn make_absolute(path: &mut Option<PathBuf>, folder: &Path) {
    if let Some(path) = path.as_mut().filter(|path| !path.as_os_str().is_empty()) {
        *path = folder.join(&*path);
    }
}

impl Kubeconfig {
    /// Adds the objects of `later` that are missing here. Of two clusters with the same name, all of the first is kept.
    pub fn merge(&mut self, later: Kubeconfig) {
        fn fill<T>(map: &mut BTreeMap<String, T>, later: BTreeMap<String, T>) {
            later.into_iter().for_each(|(name, value)| _ = map.entry(name).or_insert(value));
        }
        fill(&mut self.clusters, later.clusters);
        fill(&mut self.users, later.users);
        fill(&mut self.contexts, later.contexts);
        self.current_context = self.current_context.take().or(later.current_context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_said_with_its_line_and_without_its_value() {
        for (text, expected) in [
            ("users:\n- name: a\n  user: hunter2\n", "3: users[0].user: expected a map"),
            ("users:\n- name: a\n  user:\n    token: {secret: hunter2}\n", "4: users[0].user.token: expected a string"),
            (
                "users:\n- name: a\n  user:\n    token: a\n    client-key-data: hunter2!\n",
                "5: users[0].user.client-key-data: not valid base64",
            ),
            ("users:\n- user: {}\n", "2: users[0]: missing field `name`"),
            (
                "clusters:\n- name: a\n  cluster:\n    insecure-skip-tls-verify: hunter2\n",
                "4: clusters[0].cluster.insecure-skip-tls-verify: expected a boolean",
            ),
            ("clusters: [\n", "2: did not find expected node content"),
            ("hunter2", "1: expected a map"),
            ("clusters:\n- name: a\n- name: a\n", " two of its clusters are called \"a\""),
        ] {
            let error = parse(text.as_bytes(), Path::new("/")).map(|_| ()).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
        assert!(parse(b"\xff\xfe\x00", Path::new("/")).is_err());
    }

    #[test]
    fn what_is_not_known_or_empty_is_no_mistake() {
        for text in ["", " \n", "# nothing\n", "---\n", "clusters:\nusers: null\ncontexts: []\ncurrent-context: ''\nnew: {a: [1]}\n"] {
            let config = parse(text.as_bytes(), Path::new("/")).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert!(config.clusters.is_empty() && config.current_context.is_none(), "{text:?}");
        }
        let config = parse(b"users:\n- name: a\n  user:\n- name: b\n", Path::new("/")).unwrap();
        assert!(config.users["a"] == User::default() && config.users["b"] == User::default());
        // JSON is YAML.
        let config = parse(br#"{"clusters":[{"name":"a","cluster":{"server":"https://a"}}]}"#, Path::new("/")).unwrap();
        assert_eq!(config.clusters["a"].server.as_deref(), Some("https://a"));
    }

    #[test]
    fn relative_paths_are_relative_to_their_file() {
        let text = "clusters: [{name: c, cluster: {certificate-authority: ca.pem}}]\nusers:\n- name: u\n  user:\n    \
                    client-certificate: ../c.pem\n    client-key: /k.pem\n    tokenFile: t\n    exec: {command: bin/plugin}\n\
                    - name: v\n  user: {exec: {command: plugin}}\n";
        let config = parse(text.as_bytes(), Path::new("/etc/kube")).unwrap();
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(config.clusters["c"].certificate_authority, path("/etc/kube/ca.pem"));
        let user = &config.users["u"];
        assert_eq!((&user.client_certificate, &user.client_key), (&path("/etc/kube/../c.pem"), &path("/k.pem")));
        assert_eq!(user.token_file, path("/etc/kube/t"));
        let command = |user: &User| user.exec.clone().unwrap().command;
        assert_eq!((command(user), command(&config.users["v"])), (path("/etc/kube/bin/plugin"), path("plugin")));
    }

    #[test]
    fn the_first_file_to_name_something_wins_whole() {
        let parse = |text: &str| parse(text.as_bytes(), Path::new("/")).unwrap();
        let mut config = parse("clusters: [{name: a, cluster: {server: first}}]\n");
        config.merge(parse("clusters: [{name: a, cluster: {server: x, proxy-url: p}}, {name: b}]\ncurrent-context: two\n"));
        config.merge(parse("current-context: three\ncontexts: [{name: two, context: {cluster: a}}]\n"));
        assert!(config.clusters["a"] == Cluster { server: Some("first".into()), ..Cluster::default() });
        assert_eq!(config.clusters.len(), 2);
        assert_eq!(config.current_context.as_deref(), Some("two"));
        assert_eq!(config.contexts["two"].cluster.as_deref(), Some("a"));
    }
}
