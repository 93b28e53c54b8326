//! System calls: those are refused that change the system, look into other processes, lead into other namespaces, or have been doors
//! into the kernel. A list of what is refused, not of what is allowed: programs that this process starts inherit it, and nobody
//! knows what a credential plugin calls.

use std::collections::BTreeMap;
use std::error::Error;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition as Condition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Refused, whatever their arguments.
const REFUSED: [c_long; 42] = [
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    // Other namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Names and time.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// clone(2) with one of these makes a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// setsockopt(2) with these replaces a legacy table, or its counters: `IPT_SO_SET_REPLACE` and `IPT_SO_SET_ADD_COUNTERS`, which ip6_tables
/// numbers alike. (What netlink messages say, and so nftables, is nothing a filter can see.)
const TABLE_OPTIONS: [u64; 2] = [64, 65];

/// bpf(2) with these reads a pinned map: `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_GET_NEXT_KEY`, `BPF_OBJ_GET`, `BPF_OBJ_GET_INFO_BY_FD` and
/// `BPF_MAP_LOOKUP_BATCH`. All others are refused.
const MAP_READS: [u64; 5] = [1, 4, 7, 15, 24];

/// Refuses them from now on.
pub fn deny() -> Result<(), Box<dyn Error>> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| u64::from(flag.unsigned_abs()));
    let namespace = |flag| SeccompRule::new(vec![Condition::new(0, Length::Qword, Op::MaskedEq(flag), flag)?]);
    rules.insert(libc::SYS_clone, namespaces.map(namespace).collect::<Result<_, _>>()?);
    let levels = [libc::IPPROTO_IP, libc::IPPROTO_IPV6].map(|level| u64::from(level.unsigned_abs()));
    let option = |level, option| {
        SeccompRule::new(vec![Condition::new(1, Length::Dword, Op::Eq, level)?, Condition::new(2, Length::Dword, Op::Eq, option)?])
    };
    let options = levels.iter().flat_map(|level| TABLE_OPTIONS.map(|number| option(*level, number)));
    rules.insert(libc::SYS_setsockopt, options.collect::<Result<_, _>>()?);
    let other = |read| Condition::new(0, Length::Dword, Op::Ne, read);
    let others = MAP_READS.into_iter().map(other).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(others)?]);
    refuse(rules, libc::EPERM)?;
    // Its flags lie in memory, where no filter looks. As if the kernel did not know it: C libraries use clone(2) then.
    refuse([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

fn refuse(rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: libc::c_int) -> Result<(), Box<dyn Error>> {
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}
