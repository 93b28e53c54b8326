//! Least privilege: what this process, and every program that it starts, gives up for good before it serves anyone. Touches: this
//! thread's own rights, so it comes before other threads, which inherit them.
//!
//! Whoever takes over the process has what is left: two capabilities, four at most, no file to write, fewer system calls. Nothing here fails because
//! there is little to give up: the process may be unprivileged already, or the kernel may not know one of the means.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod calls;
/// Architectures whose calls the filter does not know.
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

/// What is kept beyond the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Writing files and connecting to local sockets: programs of the administrator's choice may have to.
    pub files: bool,
    /// The capabilities to read the eBPF dataplane, as far as the process has them: its maps, and Felix's folders.
    pub ebpf: bool,
}

/// Gives up the capabilities that not even starting takes: from here on, files are read as they will be read in operation.
pub fn at_start() {
    // rustix asks for it once; before Linux 6.4 it reads a file for that, which after the next step is root's.
    _ = rustix::param::page_size();
    // Passwords are in this memory: no program that it starts reads it, and no dump holds it.
    _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // What is impossible now is impossible later too, and said then.
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
    // The next ones are for processes that cannot become more than they are.
    step("never to gain privileges", rustix::thread::set_no_new_privs(true).map_err(Into::into));
    step("to lose access to files and other processes", landlock::protect(kept.files));
    step("to give up capabilities", capabilities::keep(capabilities::in_operation(kept.ebpf), kept.ebpf).map_err(Into::into));
    step("to refuse system calls that it does not need", calls::deny(kept.files));
    if !failed.is_empty() {
        log::warn!("this process could not be made {}", failed.join(", nor "));
    }
}
