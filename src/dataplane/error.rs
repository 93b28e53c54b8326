//! Why the tables could not be read, in one line for the user.

use std::fmt;
use std::io;

use super::presence::Unreadable;
use crate::config::BackendChoice;
use crate::ebpf;
use crate::ruleset::{Backend, Family};

#[derive(Debug)]
pub enum ReadError {
    NoProgram(String),
    /// The xtables lock exists but cannot be obtained.
    Lock(String),
    Save(String),
    Kernel(Backend, Family, io::Error),
    /// It is unknown whether these tables exist, and no other tables hold Calico's rules.
    Hidden(Backend, Unreadable),
    Ebpf(ebpf::Error),
    NoChains(NoChains),
}

/// Everything was read, and none of Calico's chains has rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoChains {
    pub vanished: bool,
    pub elsewhere: Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    Nowhere,
    /// In another back end than the requested one.
    Backend(BackendChoice, Backend),
    /// In eBPF programs whose maps are not visible. Only the chains that accompany them are.
    Ebpf,
}

impl ReadError {
    pub fn no_chains(&self) -> Option<&NoChains> {
        match self {
            ReadError::NoChains(no_chains) => Some(no_chains),
            _ => None,
        }
    }

    /// Reports whether the error persists until the user acts.
    pub fn is_blind(&self) -> bool {
        match self {
            ReadError::NoProgram(_) | ReadError::Hidden(..) | ReadError::NoChains(_) => true,
            ReadError::Kernel(_, _, error) => error.kind() == io::ErrorKind::PermissionDenied,
            ReadError::Ebpf(error) => error.is_denied(),
            ReadError::Lock(_) | ReadError::Save(_) => false,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NoProgram(path) => {
                write!(f, "neither iptables-nft-save, iptables-legacy-save nor iptables-save is on the search path ({path})")
            }
            ReadError::Lock(error) | ReadError::Save(error) => f.write_str(error),
            ReadError::Ebpf(error) => error.fmt(f),
            ReadError::Kernel(backend, family, error) => {
                write!(f, "reading the kernel's {} tables ({}) failed: {error}", backend.as_str(), family.as_str())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => write!(f, "; this needs the capabilities NET_ADMIN and NET_RAW"),
                    _ => Ok(()),
                }
            }
            ReadError::Hidden(backend, unreadable) => write!(
                f,
                "{unreadable}, so it is unknown whether the kernel has {} tables: run as root (runAsUser: 0), or set BACKEND",
                backend.as_str()
            ),
            ReadError::NoChains(no_chains) => no_chains.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl fmt::Display for NoChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vanished, self.elsewhere) {
            (_, Elsewhere::Backend(asked, found)) => write!(
                f,
                "none of Calico's chains is in the {} dataplane, which BACKEND asks for: they are in {}",
                asked.as_str(),
                found.as_str()
            ),
            (_, Elsewhere::Ebpf) => f.write_str(
                "only the chains that Calico's eBPF dataplane needs are here, and none of its maps: mount the host's /sys/fs/bpf (BPFFS)",
            ),
            (true, Elsewhere::Nowhere) => f.write_str(
                "Calico's chains have vanished: they were here before, and nothing enforces its policies until Felix writes them again",
            ),
            (false, Elsewhere::Nowhere) => f.write_str(
                "none of Calico's chains is here: Felix has not written any yet, or this is not the host's network namespace \
                 (hostNetwork: true)",
            ),
        }
    }
}
