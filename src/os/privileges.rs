//! Least privilege: what this process, and every program that it starts, gives up for good before it serves requests. Touches: this
//! thread's own rights. So it runs before other threads start, which inherit them.
//!
//! An attacker who takes over the process has only what is left: two capabilities, at most four, no writable files, fewer system calls.
//! Nothing here fails because there is little to give up: the process may be unprivileged already, or the kernel may not support a
//! mechanism.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod calls;
/// Architectures whose system call numbers the filter does not know.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod calls {
    pub fn deny(_files: bool) -> Result<(), Box<dyn std::error::Error>> {
        Err("no filter for this architecture".into())
    }
}
mod capabilities;
mod landlock;

use std::error::Error;

pub use capabilities::searching;

/// What is kept beyond the minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Writing files and connecting to local sockets. Programs chosen by the administrator may need this.
    pub files: bool,
    /// The capabilities to read the eBPF dataplane (its maps, and Felix's folders), as far as the process has them.
    pub ebpf: bool,
}

/// Gives up the capabilities that not even the start needs. From here on, files are read with the rights of normal operation.
pub fn at_start() {
    // rustix caches the page size. Before Linux 6.4 it reads a file for it, which only root may read after the next step.
    _ = rustix::param::page_size();
    // This memory contains passwords. Programs that this process starts must not read it, and core dumps must not contain it.
    _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // A failure here is repeated and reported in `for_good`.
    _ = capabilities::keep(capabilities::at_start(), true);
}

/// Gives up everything else.
pub fn for_good(kept: Kept) {
    let mut failed = Vec::new();
    let mut step = |what: &str, result: Result<(), Box<dyn Error>>| {
        if let Err(error) = result {
            failed.push(format!("{what} ({error})"));
        }
    };
    // The following steps require that the process can gain no privileges.
    step("never to gain privileges", rustix::thread::set_no_new_privs(true).map_err(Into::into));
    step("to lose access to files and other processes", landlock::protect(kept.files));
    step("to give up capabilities", capabilities::keep(capabilities::in_operation(kept.ebpf), kept.ebpf).map_err(Into::into));
    step("to refuse system calls that it does not need", calls::deny(kept.files));
    if !failed.is_empty() {
        log::warn!("this process could not be made {}", failed.join(", nor "));
    }
}
