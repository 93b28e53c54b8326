//! Capabilities: dropped from all five sets. See capabilities(7).

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What reading the rules takes, for programs that this process starts too.
pub const OPERATION: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];
/// The same, and what reading eBPF maps takes.
pub const WITH_MAPS: [CapabilitySet; 3] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW, CapabilitySet::BPF];
/// The same; what listening on a port below 1024 takes; and the right to drop more.
pub const START: [CapabilitySet; 5] =
    [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW, CapabilitySet::BPF, CapabilitySet::NET_BIND_SERVICE, CapabilitySet::SETPCAP];

/// Drops all others. None is gained.
pub fn keep(kept: &[CapabilitySet]) -> io::Result<()> {
    let all: CapabilitySet = kept.iter().copied().collect();
    for capability in CapabilitySet::all().difference(all).iter() {
        match remove_capability_from_bounding_set(capability) {
            // Not ours to remove: then this process cannot gain it by a program that it starts either, but by one with rights of
            // its own, and that is excluded otherwise. Or the kernel does not know it.
            Ok(()) | Err(io::Errno::PERM | io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let has = capabilities(None)?;
    let inheritable = has.inheritable & all;
    // An ambient capability is inheritable too: without root's user id, it is what programs inherit.
    let ambient = |capability: &CapabilitySet| rustix::thread::capability_is_in_ambient_set(*capability).unwrap_or(false);
    let ambient: Vec<_> = kept.iter().copied().filter(ambient).collect();
    _ = clear_ambient_capability_set();
    set_capabilities(None, CapabilitySets { effective: has.effective & all, permitted: has.permitted & all, inheritable })?;
    for capability in ambient {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
