//! A certificate authority for one test, created with the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::etcd::Scratch;

/// A CA, a server certificate for 127.0.0.1 and a client certificate, as PEM files.
#[derive(Clone)]
pub struct Certificates {
    scratch: Arc<Scratch>,
}

impl Certificates {
    /// Creates them. The client certificate has no common name, unless one is given.
    pub fn new(common_name: Option<&str>) -> Self {
        let certificates = Certificates { scratch: Arc::new(Scratch::new()) };
        certificates.renew(common_name);
        certificates
    }

    /// Replaces all of them, including the CA, in the same files.
    pub fn renew(&self, common_name: Option<&str>) {
        let ca = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let files = ["-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem"];
        let extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        self.openssl(&[&ca[..], &files, &extensions].concat());
        // etcd's gateway connects to etcd itself with the server certificate as client certificate.
        self.issue("server", "/CN=etcd", "serverAuth,clientAuth");
        let subject = common_name.map_or("/O=calico".to_owned(), |name| format!("/CN={name}"));
        self.issue("client", &subject, "clientAuth");
    }

    fn issue(&self, name: &str, subject: &str, usage: &str) {
        let extensions = format!("subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n");
        std::fs::write(self.file(&format!("{name}.ext")), extensions).unwrap();
        let (key, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject];
        self.openssl(&[&new[..], &["-keyout", &key, "-out", &request]].concat());
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        self.openssl(&[&sign[..], &["-extfile", &format!("{name}.ext"), "-out", &cert]].concat());
    }

    fn openssl(&self, args: &[&str]) {
        let command = Command::new("openssl").args(args).current_dir(self.scratch.path()).stdout(Stdio::null()).output();
        let output = command.expect("openssl is installed");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.scratch.path()).join(name)
    }

    /// Creates a client certificate for another name, and its key. `file` is the name of the files.
    pub fn client_named(&self, file: &str, common_name: &str) -> (PathBuf, PathBuf) {
        self.issue(file, &format!("/CN={common_name}"), "clientAuth");
        (self.file(&format!("{file}.pem")), self.file(&format!("{file}.key")))
    }

    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    pub fn server_cert(&self) -> PathBuf {
        self.file("server.pem")
    }

    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    pub fn client_cert(&self) -> PathBuf {
        self.file("client.pem")
    }

    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }
}
