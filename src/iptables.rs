//! `iptables-save` and `ip6tables-save`: find them, run them under the lock, take their text apart.
pub mod text;
