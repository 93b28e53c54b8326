//! Drops capabilities from all five sets. See capabilities(7).

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities to read the rules, also for programs that this process starts.
const OPERATION: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);
/// The capabilities to listen on a port below 1024 and to drop more.
const START: CapabilitySet = CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::SETPCAP);

/// The capability to enter the folders of Felix's files about eBPF programs. Felix creates them with mode 0600, and even root needs a
/// capability to search a folder. A descriptor that was opened earlier does not help: each lookup in the folder is checked again.
///
/// It is kept only in the permitted set, and is effective only while they are read ([`searching`]). Everything else is read without it, and
/// programs that this process starts cannot have it.
const SEARCH: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

pub fn at_start() -> CapabilitySet {
    START | in_operation(true)
}

/// Returns what is kept in operation. With `maps`, includes the capability to read eBPF maps.
pub fn in_operation(maps: bool) -> CapabilitySet {
    if maps { OPERATION | maps_capability() } else { OPERATION }
}

/// Before Linux 5.8, reading eBPF maps has no separate capability.
fn maps_capability() -> CapabilitySet {
    match capability_is_in_bounding_set(CapabilitySet::BPF) {
        Err(io::Errno::INVAL) => CapabilitySet::SYS_ADMIN,
        _ => CapabilitySet::BPF,
    }
}

/// Drops all other capabilities, and adds none. With `search`, also keeps the one for [`searching`].
pub fn keep(kept: CapabilitySet, search: bool) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // This process may not remove it, or the kernel does not know it. Then a started program could only gain it through its own
            // privileges, which is excluded elsewhere (`no_new_privs`).
            Ok(()) | Err(io::Errno::PERM | io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let has = capabilities(None)?;
    let inheritable = has.inheritable & kept;
    // An ambient capability is also inheritable. Programs that run without root's user ID inherit the ambient ones.
    let ambient = |capability: &CapabilitySet| rustix::thread::capability_is_in_ambient_set(*capability).unwrap_or(false);
    let ambient: Vec<_> = kept.iter().filter(ambient).collect();
    _ = clear_ambient_capability_set();
    let permitted = has.permitted & if search { kept | SEARCH } else { kept };
    set_capabilities(None, CapabilitySets { effective: has.effective & kept, permitted, inheritable })?;
    for capability in ambient {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Lets this thread enter all folders while it runs `read`, if this process is permitted to.
pub fn searching<T>(read: impl FnOnce() -> T) -> T {
    let lent = capabilities(None).ok().filter(|has| has.permitted.contains(SEARCH) && !has.effective.contains(SEARCH));
    let _lent = lent.and_then(|before| {
        let more = CapabilitySets { effective: before.effective | SEARCH, ..before };
        set_capabilities(None, more).ok().map(|()| Lent(before))
    });
    read()
}

struct Lent(CapabilitySets);

impl Drop for Lent {
    fn drop(&mut self) {
        // Dropping capabilities is always allowed.
        _ = set_capabilities(None, self.0);
    }
}
