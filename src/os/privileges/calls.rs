//! Refuses system calls that change the system, inspect other processes, enter other namespaces, or have often led to kernel exploits. The
//! list is of refused calls, not of allowed ones, because programs that this process starts inherit it, and the calls of a credential
//! plugin are unknown.

use std::collections::BTreeMap;
use std::error::Error;

use libc::c_long;
#[cfg(target_arch = "x86_64")]
use seccompiler::sock_filter;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition as Condition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Calls that are refused whatever their arguments.
const REFUSED: &[c_long] = &[
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
    libc::SYS_kcmp,
    SYS_PROCESS_MADVISE,
    SYS_PROCESS_MRELEASE,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // System V and POSIX shared objects.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    SYS_KEXEC_FILE_LOAD,
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

/// Calls that are also refused if files must not change. Landlock does not cover modes, owners, times and attributes.
const FILE_ATTRIBUTES: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SYS_SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SYS_REMOVEXATTRAT,
    SYS_FILE_SETATTR,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// libc has no name for it on arm64 with musl.
#[cfg(target_arch = "aarch64")]
const SYS_KEXEC_FILE_LOAD: c_long = 294;
#[cfg(not(target_arch = "aarch64"))]
const SYS_KEXEC_FILE_LOAD: c_long = libc::SYS_kexec_file_load;
/// Numbers that some C libraries lack. From 424 on they are the same on every architecture.
const SYS_PROCESS_MADVISE: c_long = 440;
const SYS_PROCESS_MRELEASE: c_long = 448;
const SYS_FCHMODAT2: c_long = 452;
const SYS_SETXATTRAT: c_long = 463;
const SYS_REMOVEXATTRAT: c_long = 466;
const SYS_FILE_SETATTR: c_long = 469;

/// ioctl(2) requests that change a file's attributes: `FS_IOC_SETFLAGS`, its 32-bit form, `FS_IOC_FSSETXATTR`.
const FILE_REQUESTS: &[u64] = &[0x4008_6602, 0x4004_6602, 0x401c_5820];
/// ioctl(2) requests that insert input into a terminal: `TIOCSTI`, `TIOCLINUX`.
const TERMINAL_REQUESTS: &[u64] = &[0x5412, 0x541c];

/// Calls that change another process if this argument is not 0, which means the caller.
const OTHERS: &[(c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// clone(2) flags that create a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// setsockopt(2) options that change legacy tables or their counters: `IPT_SO_SET_*`, for which ip6_tables has the same numbers,
/// `ARPT_SO_SET_*`, `EBT_SO_SET_*`. (A filter cannot see the content of netlink messages, and so cannot protect nftables.)
const TABLE_OPTIONS: [u64; 6] = [64, 65, 96, 97, 128, 129];
/// The first and last setsockopt(2) option that change IPVS: `IP_VS_SO_SET_*`.
const IPVS_OPTIONS: (u64, u64) = (1152, 1168);

/// The only bpf(2) commands that are allowed, because they read a pinned map: `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_GET_NEXT_KEY`, `BPF_OBJ_GET`,
/// `BPF_OBJ_GET_INFO_BY_FD` and `BPF_MAP_LOOKUP_BATCH`.
const MAP_READS: [u64; 5] = [1, 4, 7, 15, 24];

/// Refuses these calls from now on. With `files`, calls that change files and local sockets stay allowed, because programs chosen by the
/// administrator may need them.
pub fn deny(files: bool) -> Result<(), Box<dyn Error>> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut requests = TERMINAL_REQUESTS.to_vec();
    if !files {
        rules.extend(FILE_ATTRIBUTES.iter().map(|call| (*call, Vec::new())));
        requests.extend(FILE_REQUESTS);
        // Root access to the sockets of service managers and container runtimes gives root rights.
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![is(0, libc::AF_UNIX.unsigned_abs().into())?])?]);
    }
    rules.insert(libc::SYS_ioctl, any_of(requests.iter().map(|request| Ok(vec![is(1, *request)?])))?);
    for (call, argument) in OTHERS {
        rules.insert(*call, vec![SeccompRule::new(vec![Condition::new(*argument, Length::Dword, Op::Ne, 0)?])?]);
    }
    let namespaces = NAMESPACES.iter().map(|flag| u64::from(flag.unsigned_abs()));
    rules.insert(libc::SYS_clone, any_of(namespaces.map(|flag| Ok(vec![Condition::new(0, Length::Qword, Op::MaskedEq(flag), flag)?])))?);
    rules.insert(libc::SYS_setsockopt, table_options()?);
    let other = |read| Condition::new(0, Length::Dword, Op::Ne, read);
    let others = MAP_READS.into_iter().map(other).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(others)?]);
    refuse(rules, libc::EPERM)?;
    // clone3(2) has its flags in memory, which a filter cannot read. With ENOSYS, C libraries use clone(2) instead.
    refuse([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?;
    #[cfg(target_arch = "x86_64")]
    refuse_x32()?;
    Ok(())
}

fn table_options() -> Result<Vec<SeccompRule>, BackendError> {
    let levels = [libc::IPPROTO_IP, libc::IPPROTO_IPV6].map(|level| u64::from(level.unsigned_abs()));
    let (first, last) = IPVS_OPTIONS;
    any_of(levels.into_iter().flat_map(|level| {
        let tables = TABLE_OPTIONS.into_iter().map(move |option| Ok(vec![is(1, level)?, is(2, option)?]));
        let ipvs =
            || Ok(vec![is(1, level)?, Condition::new(2, Length::Dword, Op::Ge, first)?, Condition::new(2, Length::Dword, Op::Le, last)?]);
        tables.chain([ipvs()])
    }))
}

/// A condition that the lower 32 bits of an argument equal `value`.
fn is(argument: u8, value: u64) -> Result<Condition, BackendError> {
    Condition::new(argument, Length::Dword, Op::Eq, value)
}

fn any_of(rules: impl Iterator<Item = Result<Vec<Condition>, BackendError>>) -> Result<Vec<SeccompRule>, BackendError> {
    rules.map(|conditions| SeccompRule::new(conditions?)).collect()
}

/// Refuses the calls of the x32 ABI: the same calls under other numbers, which the lists above do not contain.
#[cfg(target_arch = "x86_64")]
fn refuse_x32() -> Result<(), Box<dyn Error>> {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, jf, k| sock_filter { code: code as u16, jt: 0, jf, k };
    Ok(apply_filter(&[
        // The call's number is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ])?)
}

fn refuse(rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: libc::c_int) -> Result<(), Box<dyn Error>> {
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}
