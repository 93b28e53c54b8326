//! What tests share.

pub mod fixture;
