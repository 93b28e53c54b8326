//! An older kernel, as far as a system call that it does not know makes one.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// From now on, for this thread and what it starts, a system call with these first arguments ends in EINVAL: as on a kernel that does not
/// know it.
pub fn knows_not(call: i64, arguments: &[u64]) {
    let is = |(place, value): (usize, &u64)| SeccompCondition::new(place as u8, Length::Dword, Op::Eq, *value).unwrap();
    let rule = SeccompRule::new(arguments.iter().enumerate().map(is).collect()).unwrap();
    let (refusal, arch) = (SeccompAction::Errno(libc::EINVAL as u32), std::env::consts::ARCH.try_into().unwrap());
    let filter = SeccompFilter::new([(call, vec![rule])].into(), SeccompAction::Allow, refusal, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
