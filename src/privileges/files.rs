//! Files: none is written, made, renamed or removed, whatever its mode and whoever owns it. By Landlock, which Linux has since 5.13.

use std::error::Error;

use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules};

/// Devices that scripts write to, and that keep nothing.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// Forbids it. A kernel that knows less does less.
pub fn protect() -> Result<(), Box<dyn Error>> {
    let writing = AccessFs::from_write(ABI::V5);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
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
