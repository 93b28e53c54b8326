//! Simulates an older kernel that lacks a system call.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// seccompiler does not support other architectures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub fn knows_not(_: i64, _: &[u64]) {
    panic!("system calls cannot be filtered on this architecture");
}

/// From now on, for this thread and its children, a system call with these first arguments fails with EINVAL, as on a kernel that does not
/// support it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub fn knows_not(call: i64, arguments: &[u64]) {
    let is = |(place, value): (usize, &u64)| SeccompCondition::new(place as u8, Length::Dword, Op::Eq, *value).unwrap();
    let rule = SeccompRule::new(arguments.iter().enumerate().map(is).collect()).unwrap();
    let (refusal, arch) = (SeccompAction::Errno(libc::EINVAL as u32), std::env::consts::ARCH.try_into().unwrap());
    let filter = SeccompFilter::new([(call, vec![rule])].into(), SeccompAction::Allow, refusal, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
