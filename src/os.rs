//! The operating system: calls that Rust's library lacks, children, this process's rights and resources, the log.

pub mod child;
pub mod logging;
pub mod privileges;
pub mod process;
pub(crate) mod sys;
