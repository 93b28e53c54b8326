//! The operating system: calls that Rust's library lacks, children, this process's rights and resources, the log.

pub(crate) mod child;
pub(crate) mod logging;
pub mod privileges;
pub(crate) mod process;
pub(crate) mod sys;
