//! Landlock: no file is written, made, renamed or removed, whatever its mode and whoever owns it (Linux 5.13); no process outside is
//! signalled, no abstract socket of theirs connected to (Linux 6.12).

use std::error::Error;

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

/// Devices that scripts write to, and that keep nothing.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// Forbids it; `files`: signals alone. A kernel that knows less does less.
pub fn protect(files: bool) -> Result<(), Box<dyn Error>> {
    let writing = AccessFs::from_write(ABI::V5);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::Signal)?;
    if files {
        ruleset.create()?.restrict_self()?;
        return Ok(());
    }
    let status = ruleset
        .scope(Scope::AbstractUnixSocket)?
        .handle_access(writing)?
        .create()?
        // What is not there needs no exception.
        .add_rules(path_beneath_rules(DEVICES, writing))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
