//! Describes matches from nf_tables expressions. Pure, except that the caller provides the elements of a rule's own sets.

use super::super::netlink::Attributes;
use super::super::xt::{be32, string};
use super::{Words, address, prefix, range, text};

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Protocol,
    Address(&'static str),
    Port(&'static str),
    IcmpType,
    IcmpCode,
    /// Two adjacent fields, which nft compares in one comparison.
    Both(&'static [Field; 2]),
    /// The same for all packets of a table.
    Family,
    Other,
}

static ADDRESSES: [Field; 2] = [Field::Address("source"), Field::Address("destination")];
static PORTS: [Field; 2] = [Field::Port("source port"), Field::Port("destination port")];
static ICMP: [Field; 2] = [Field::IcmpType, Field::IcmpCode];

struct Loaded {
    register: u32,
    field: Field,
    /// The mask, unless all bits are kept.
    mask: Option<Vec<u8>>,
}

/// An element of a set: its key, and whether an interval ends before it.
pub type Element = (Vec<u8>, bool);

pub struct Rule<'a> {
    words: Words,
    /// The fields loaded since the last comparison. Several of them are a concatenation.
    loaded: Vec<Loaded>,
    /// The start of a range whose end has not been read yet.
    begun: Option<(Field, Vec<u8>)>,
    is_ipv4: bool,
    /// Whether the rule is known to match ICMP, which has no ports.
    is_icmp: bool,
    elements: &'a mut dyn FnMut(&[u8]) -> Option<Vec<Element>>,
}

/// Describes a rule. `elements` returns the elements of the set with this name.
pub fn rule(list: &[u8], is_ipv4: bool, elements: &mut dyn FnMut(&[u8]) -> Option<Vec<Element>>) -> String {
    let mut rule = Rule { words: Words::default(), loaded: Vec::new(), begun: None, is_ipv4, is_icmp: false, elements };
    for (_, element) in Attributes(list) {
        let name = Attributes(element).get(1).map(string).unwrap_or_default();
        let data = Attributes(Attributes(element).get(2).unwrap_or_default());
        if rule.expression(name, data).is_none() {
            rule.words.more();
        }
    }
    if rule.begun.is_some() {
        rule.words.more();
    }
    rule.words.finish()
}

/// `NFTA_DATA_VALUE`
fn value(data: Option<&[u8]>) -> Option<&[u8]> {
    Attributes(data?).get(1)
}

impl Rule<'_> {
    fn expression(&mut self, name: &[u8], data: Attributes) -> Option<()> {
        match name {
            // Not matches.
            b"counter" | b"target" | b"immediate" | b"log" | b"reject" | b"notrack" => Some(()),
            b"match" => {
                self.words.xt(string(data.get(1)?), be32(data.get(2)?)?, data.get(3).unwrap_or_default());
                Some(())
            }
            b"meta" => self.meta(data),
            b"payload" => self.payload(data),
            b"bitwise" => self.bitwise(data),
            b"cmp" => self.cmp(data),
            b"range" => {
                let (loaded, negated) = (self.take(data.get(1)?)?, be32(data.get(2)?)? != 0);
                self.range(loaded.field, negated, value(data.get(3))?, value(data.get(4))?)
            }
            b"lookup" => self.lookup(data),
            _ => {
                self.loaded.clear();
                None
            }
        }
    }

    fn load(&mut self, register: &[u8], field: Field) -> Option<()> {
        let register = be32(register)?;
        self.loaded.retain(|loaded| loaded.register != register);
        self.loaded.push(Loaded { register, field, mask: None });
        Some(())
    }

    /// Returns the register that is compared, and forgets all loaded registers.
    fn take(&mut self, register: &[u8]) -> Option<Loaded> {
        let register = be32(register)?;
        let place = self.loaded.iter().position(|loaded| loaded.register == register)?;
        let loaded = self.loaded.swap_remove(place);
        self.loaded.clear();
        Some(loaded)
    }

    fn meta(&mut self, data: Attributes) -> Option<()> {
        let Some(to) = data.get(1) else {
            // The mark is set to what was loaded.
            self.loaded.clear();
            return Some(());
        };
        let field = match be32(data.get(2)?)? {
            16 => Field::Protocol,
            15 => Field::Family,
            _ => Field::Other,
        };
        self.load(to, field)
    }

    fn payload(&mut self, data: Attributes) -> Option<()> {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let number = |kind| data.get(kind).and_then(be32);
        let place = (number(2)?, number(3)?, number(4)?, self.is_ipv4);
        let field = match place {
            (NETWORK, 9, 1, true) | (NETWORK, 6, 1, false) => Field::Protocol,
            (NETWORK, 12, 1..=4, true) | (NETWORK, 8, 1..=16, false) => Field::Address("source"),
            (NETWORK, 16, 1..=4, true) | (NETWORK, 24, 1..=16, false) => Field::Address("destination"),
            (NETWORK, 12, 8, true) | (NETWORK, 8, 32, false) => Field::Both(&ADDRESSES),
            (TRANSPORT, 0, 1, _) if self.is_icmp => Field::IcmpType,
            (TRANSPORT, 1, 1, _) if self.is_icmp => Field::IcmpCode,
            (TRANSPORT, 0, 2, _) if self.is_icmp => Field::Both(&ICMP),
            (TRANSPORT, ..) if self.is_icmp => Field::Other,
            (TRANSPORT, 0, 4, _) => Field::Both(&PORTS),
            (TRANSPORT, 0, 2, _) => Field::Port("source port"),
            (TRANSPORT, 2, 2, _) => Field::Port("destination port"),
            _ => Field::Other,
        };
        self.load(data.get(1)?, field)
    }

    fn bitwise(&mut self, data: Attributes) -> Option<()> {
        let (from, to) = (be32(data.get(1)?)?, be32(data.get(2)?)?);
        let loaded = self.loaded.iter_mut().find(|loaded| loaded.register == from)?;
        let keeps = value(data.get(5)).is_some_and(|turned| turned.iter().all(|byte| *byte == 0));
        match value(data.get(4)) {
            Some(mask) if keeps && loaded.mask.is_none() => loaded.mask = Some(mask.to_vec()),
            _ => loaded.field = Field::Other,
        }
        loaded.register = to;
        Some(())
    }

    fn cmp(&mut self, data: Attributes) -> Option<()> {
        let (loaded, operation, wanted) = (self.take(data.get(1)?)?, be32(data.get(2)?)?, value(data.get(3))?);
        match operation {
            0 | 1 => self.equal(&loaded, operation == 1, wanted),
            // A range is two comparisons: at least, at most.
            5 if self.begun.is_none() => {
                self.begun = Some((loaded.field, wanted.to_vec()));
                // The end of the range is compared in the same register.
                self.loaded.push(loaded);
                Some(())
            }
            3 => {
                let (field, from) = self.begun.take()?;
                (field == loaded.field).then(|| self.range(field, false, &from, wanted))?
            }
            _ => None,
        }
    }

    fn equal(&mut self, Loaded { field, mask, .. }: &Loaded, negated: bool, wanted: &[u8]) -> Option<()> {
        match (field, mask) {
            (Field::Protocol, None) => {
                let number = *wanted.first()?;
                self.is_icmp |= !negated && [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&number.into());
                self.words.protocol(negated, number);
            }
            (Field::Both(fields), None) if !negated => {
                for (field, wanted) in fields.iter().zip(wanted.chunks(wanted.len().div_ceil(2).max(1))) {
                    self.equal(&Loaded { register: 0, field: *field, mask: None }, negated, wanted)?;
                }
            }
            (Field::Family, _) => {}
            (Field::Port(what), None) => self.words.say(negated, &format!("{what} {}", port(wanted)?)),
            (Field::IcmpType, None) => self.words.say(negated, &format!("ICMP type {}", wanted.first()?)),
            (Field::IcmpCode, None) => self.words.say(negated, &format!("ICMP code {}", wanted.first()?)),
            (Field::Address(side), mask) => {
                // A prefix of whole bytes is compared without a mask.
                let length = mask.as_ref().map_or(Some(8 * wanted.len() as u32), |mask| prefix(mask))?;
                let mut bytes = wanted.to_vec();
                bytes.resize(if self.is_ipv4 { 4 } else { 16 }, 0);
                self.words.address(negated, side, address(&bytes)?, length);
            }
            _ => return None,
        }
        Some(())
    }

    fn range(&mut self, field: Field, negated: bool, from: &[u8], to: &[u8]) -> Option<()> {
        let Field::Port(what) = field else { return None };
        self.words.say(negated, &format!("{what} {}", range(port(from)?, port(to)?)));
        Some(())
    }

    fn lookup(&mut self, data: Attributes) -> Option<()> {
        let (name, negated) = (data.get(1)?, data.get(5).and_then(be32).unwrap_or(0) & 1 != 0);
        let loaded = std::mem::take(&mut self.loaded);
        if data.get(3).is_some() || loaded.is_empty() || loaded.iter().any(|loaded| loaded.mask.is_some()) {
            return None;
        }
        if !string(name).starts_with(b"__set") {
            let fields = loaded.iter().map(|loaded| loaded.field.name()).collect::<Option<Vec<_>>>()?;
            self.words.say(negated, &format!("{} in set {}", fields.join(" and "), text(name)));
            return Some(());
        }
        let [Loaded { field, .. }] = loaded[..] else { return None };
        let elements = (self.elements)(string(name))?;
        match field {
            Field::Port(what) => self.words.say(negated, &format!("{what} {}", ports(elements)?)),
            Field::Address(side) if elements.iter().all(|(_, is_end)| !is_end) => {
                let mut all = elements.iter().map(|(key, _)| address(key)).collect::<Option<Vec<_>>>()?;
                all.sort_unstable();
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                self.words.say(negated, &format!("{side} {}", all.join(",")));
            }
            _ => return None,
        }
        Some(())
    }
}

impl Field {
    fn name(self) -> Option<&'static str> {
        match self {
            Field::Protocol => Some("protocol"),
            Field::Address(side) => Some(side),
            Field::Port(what) => Some(what),
            _ => None,
        }
    }
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// Formats port ranges. In a set with intervals, one element begins each interval, and an end element marks what follows it.
fn ports(elements: Vec<Element>) -> Option<String> {
    let has_intervals = elements.iter().any(|(_, is_end)| *is_end);
    let mut all = elements.into_iter().map(|(key, is_end)| Some((port(&key)?, is_end))).collect::<Option<Vec<_>>>()?;
    all.sort_by_key(|(port, is_end)| (*port, !is_end));
    let mut ranges = Vec::new();
    let mut all = all.into_iter().peekable();
    while let Some((from, is_end)) = all.next() {
        match (has_intervals, is_end) {
            (_, true) => {}
            (false, _) => ranges.push(range(from, from)),
            (true, _) => {
                let next = all.next_if(|(_, is_end)| *is_end);
                ranges.push(range(from, next.map_or(u16::MAX, |(end, _)| end.saturating_sub(1))));
            }
        }
    }
    Some(ranges.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_sets() {
        let of = |all: &[(u16, bool)]| ports(all.iter().map(|(port, is_end)| (port.to_be_bytes().to_vec(), *is_end)).collect());
        for (elements, expected) in [
            (&[(443, false), (80, false)][..], "80,443"),
            (&[(0, true), (80, false), (81, true), (443, false), (446, true)], "80,443-445"),
            (&[(443, true), (80, false), (443, false), (444, true)], "80-442,443"),
            (&[(0, true), (1024, false)], "1024-65535"),
        ] {
            assert_eq!(of(elements).as_deref(), Some(expected), "{elements:?}");
        }
    }
}
