//! Builds the nf_tables messages that create the table that marks packets. Pure.
//!
//! ```text
//! set interfaces { type ifname }
//! chain mark { counter; limit rate N/second counter meta nftrace set 1 }
//! chain forward { hook forward priority -1; ct state invalid,new iifname @interfaces goto mark; … oifname @interfaces goto mark }
//! chain forward-end { hook forward priority 1 }                                       # and the same for input and output
//! ```

use super::super::netlink::{nest, put, put_string};
use super::{MARK, Marking, TABLE};

/// Messages: type, flags and attributes.
pub type Transaction = Vec<(u16, u16, Vec<u8>)>;

const INTERFACES: &str = "interfaces";
/// The hooks where packets meet policies: name, number in `enum nf_inet_hooks`, whether packets have an input interface there, and whether
/// they have an output interface.
const HOOKS: [(&str, u32, bool, bool); 3] = [("input", 1, true, false), ("forward", 2, true, true), ("output", 3, false, true)];
/// Felix's filter chains have priority 0.
const BEFORE: i32 = -1;
const BEHIND: i32 = 1;

const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
/// `NFT_TABLE_F_OWNER`
pub const OWNER: u32 = 2;

pub fn table_name() -> Vec<u8> {
    let mut attributes = Vec::new();
    put_string(&mut attributes, 1, TABLE);
    attributes
}

/// Returns the messages that create our table: one chain that marks, and for each hook a chain before the filters that leads there and a
/// chain after them.
pub fn table(marking: &Marking, flags: u32) -> Transaction {
    const CREATE: u16 = 0x400;
    const APPEND: u16 = 0x800;
    let mut new_table = table_name();
    put(&mut new_table, 2, &flags.to_be_bytes());
    let mut messages = vec![(NEW_TABLE, CREATE, new_table), (NEW_CHAIN, CREATE, chain(MARK, None))];
    if let Some(interfaces) = marking.interfaces {
        messages.push((NEW_SET, CREATE, set()));
        // An attribute is at most 64 kB long.
        messages.extend(interfaces.chunks(1000).map(|some| (NEW_ELEMENTS, CREATE, elements(some))));
    }
    messages.push((NEW_RULE, CREATE | APPEND, rule(MARK, &[expression("counter", |_| {})])));
    messages.push((NEW_RULE, CREATE | APPEND, rule(MARK, &marks(marking.rate))));
    for (name, hook, comes, leaves) in HOOKS {
        messages.push((NEW_CHAIN, CREATE, chain(name, Some((hook, BEFORE)))));
        messages.push((NEW_CHAIN, CREATE, chain(&format!("{name}-end"), Some((hook, BEHIND)))));
        let ways = [(comes, META_IIFNAME), (leaves, META_OIFNAME)].into_iter().filter(|(is, _)| *is).map(|(_, key)| Some(key));
        let ways: Vec<Option<u32>> = if marking.interfaces.is_some() { ways.collect() } else { vec![None] };
        for way in ways {
            let mut expressions = opens_or_belongs_to_no_connection().to_vec();
            expressions.extend(way.into_iter().flat_map(is_in_set));
            // `goto` instead of `jump`: a packet that enters by one of the interfaces and leaves by another must not be marked twice.
            expressions.push(goto(MARK));
            messages.push((NEW_RULE, CREATE | APPEND, rule(name, &expressions)));
        }
    }
    messages
}

fn chain(name: &str, hook: Option<(u32, i32)>) -> Vec<u8> {
    let mut attributes = table_name();
    put_string(&mut attributes, 3, name);
    if let Some((number, priority)) = hook {
        nest(&mut attributes, 4, |hook| {
            put(hook, 1, &number.to_be_bytes());
            put(hook, 2, &priority.to_be_bytes());
        });
        put_string(&mut attributes, 7, "filter");
    }
    attributes
}

/// Length of an interface's name in a register.
const IFNAME: usize = 16;

fn set() -> Vec<u8> {
    /// nft's number for the type. The kernel ignores it.
    const TYPE_IFNAME: u32 = 41;
    let mut attributes = table_name();
    put_string(&mut attributes, 2, INTERFACES);
    put(&mut attributes, 3, &0u32.to_be_bytes());
    put(&mut attributes, 4, &TYPE_IFNAME.to_be_bytes());
    put(&mut attributes, 5, &(IFNAME as u32).to_be_bytes());
    put(&mut attributes, 10, &1u32.to_be_bytes());
    attributes
}

fn elements(interfaces: &[String]) -> Vec<u8> {
    let mut attributes = table_name();
    put_string(&mut attributes, 2, INTERFACES);
    nest(&mut attributes, 3, |list| {
        for interface in interfaces {
            let mut name = [0; IFNAME];
            let length = interface.len().min(IFNAME - 1);
            name[..length].copy_from_slice(&interface.as_bytes()[..length]);
            nest(list, 1, |element| nest(element, 1, |key| put(key, 1, &name)));
        }
    });
    attributes
}

fn rule(chain: &str, expressions: &[Vec<u8>]) -> Vec<u8> {
    let mut attributes = table_name();
    put_string(&mut attributes, 2, chain);
    nest(&mut attributes, 4, |list| expressions.iter().for_each(|expression| list.extend(expression)));
    attributes
}

fn expression(name: &str, data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut element = Vec::new();
    nest(&mut element, 1, |element| {
        put_string(element, 1, name);
        nest(element, 2, data);
    });
    element
}

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFTRACE: u32 = 12;
const REGISTER: [u8; 4] = 1u32.to_be_bytes();

/// `ct state invalid,new`
fn opens_or_belongs_to_no_connection() -> [Vec<u8>; 3] {
    const INVALID: u32 = 1;
    const NEW: u32 = 8;
    let load = expression("ct", |data| {
        put(data, 1, &REGISTER);
        put(data, 2, &0u32.to_be_bytes());
    });
    let bits = expression("bitwise", |data| {
        put(data, 1, &REGISTER);
        put(data, 2, &REGISTER);
        put(data, 3, &4u32.to_be_bytes());
        nest(data, 4, |mask| put(mask, 1, &(INVALID | NEW).to_ne_bytes()));
        nest(data, 5, |xor| put(xor, 1, &0u32.to_ne_bytes()));
    });
    let are_set = expression("cmp", |data| {
        const NOT_EQUAL: u32 = 1;
        put(data, 1, &REGISTER);
        put(data, 2, &NOT_EQUAL.to_be_bytes());
        nest(data, 3, |value| put(value, 1, &0u32.to_ne_bytes()));
    });
    [load, bits, are_set]
}

fn is_in_set(key: u32) -> [Vec<u8>; 2] {
    let load = expression("meta", |data| {
        put(data, 1, &REGISTER);
        put(data, 2, &key.to_be_bytes());
    });
    let look_up = expression("lookup", |data| {
        put_string(data, 1, INTERFACES);
        put(data, 2, &REGISTER);
    });
    [load, look_up]
}

fn goto(chain: &str) -> Vec<u8> {
    const GOTO: i32 = -4;
    expression("immediate", |data| {
        put(data, 1, &0u32.to_be_bytes());
        nest(data, 2, |data| {
            nest(data, 2, |verdict| {
                put(verdict, 1, &GOTO.to_be_bytes());
                put_string(verdict, 2, chain);
            });
        });
    })
}

/// `limit rate N/second counter meta nftrace set 1`
fn marks(rate: u32) -> [Vec<u8>; 4] {
    let limit = expression("limit", |data| {
        put(data, 1, &u64::from(rate).to_be_bytes());
        put(data, 2, &1u64.to_be_bytes());
        put(data, 3, &rate.max(5).to_be_bytes());
    });
    let one = expression("immediate", |data| {
        put(data, 1, &REGISTER);
        nest(data, 2, |value| put(value, 1, &[1]));
    });
    let mark = expression("meta", |data| {
        put(data, 2, &META_NFTRACE.to_be_bytes());
        put(data, 3, &REGISTER);
    });
    [limit, expression("counter", |_| {}), one, mark]
}
