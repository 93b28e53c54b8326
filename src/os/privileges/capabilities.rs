//! Capabilities: dropped from all five sets. See capabilities(7).

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

/// What reading the rules takes, for programs that this process starts too.
const OPERATION: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);
/// What listening on a port below 1024 takes; and the right to drop more.
const START: CapabilitySet = CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::SETPCAP);

/// What entering the folders takes in which Felix shows its eBPF programs: it makes them with mode 0600, and root, too, has to be allowed to
/// search a folder. A descriptor of the folder that was opened before is no way around: every look-up in it asks again.
///
/// It is left in the permitted set alone, and effective only while they are read ([`searching`]): everything else is read without it, and
/// programs that this process starts cannot have it.
const SEARCH: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

pub fn at_start() -> CapabilitySet {
    START | in_operation(true)
}

/// What is left in operation; `maps`: with what reading eBPF maps takes.
pub fn in_operation(maps: bool) -> CapabilitySet {
    if maps { OPERATION | maps_capability() } else { OPERATION }
}

/// Before Linux 5.8, reading eBPF maps has no capability of its own.
fn maps_capability() -> CapabilitySet {
    match capability_is_in_bounding_set(CapabilitySet::BPF) {
        Err(io::Errno::INVAL) => CapabilitySet::SYS_ADMIN,
        _ => CapabilitySet::BPF,
    }
}

/// Drops all others, and adds none. `search`: keeps what [`searching`] takes, too.
pub fn keep(kept: CapabilitySet, search: bool) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // Not ours to remove: then this process cannot gain it by a program that it starts either, but by one with rights of
            // its own, and that is excluded otherwise. Or the kernel does not know it.
            Ok(()) | Err(io::Errno::PERM | io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let has = capabilities(None)?;
    let inheritable = has.inheritable & kept;
    // An ambient capability is inheritable too: without root's user id, it is what programs inherit.
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

/// Lets this thread enter all folders while it reads something, if this process may.
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
        // Less is always allowed.
        _ = set_capabilities(None, self.0);
    }
}
