//! Landlock: no file is written, created, renamed or removed, whatever its mode and owner (Linux 5.13). No outside process gets signals,
//! and no abstract socket of an outside process can be connected to (Linux 6.12).

use std::error::Error;

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

/// Devices that scripts write to, and that store nothing.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// Applies the restrictions. With `files`, only signals are restricted. An older kernel enforces what it supports.
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
        // A missing device needs no exception.
        .add_rules(path_beneath_rules(DEVICES, writing))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
