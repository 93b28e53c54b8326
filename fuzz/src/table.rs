//! Generates a table from any bytes, and converts it to all formats that readers support.

use calico_accountant::ruleset::Family;

const CHAINS: [&str; 6] = ["cali-tw-cali1", "cali-fw-cali1", "cali-pi-a", "cali-gi-group", "cali-pri-kns.x", "cali-to-wl-dispatch"];

pub struct Table {
    chains: Vec<(&'static str, Vec<Rule>)>,
}

struct Rule {
    comments: Vec<String>,
    mark: Option<(u32, u32, bool)>,
    /// `--ctstate`: bits of xt_conntrack, and whether it is negated.
    states: Option<(u16, bool)>,
    source: Option<[u8; 4]>,
    packets: u64,
    target: Target,
}

enum Target {
    None,
    Accept,
    Drop,
    Return,
    /// The chain's index, and whether it is a goto.
    Jump(usize, bool),
    Mark(u32, u32),
    Nflog(String),
}

/// The input bytes, followed by zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.next(), self.next(), self.next(), self.next()])
    }

    /// Returns a text as users may write it in an annotation.
    fn text(&mut self) -> String {
        const LETTERS: [char; 16] = ['a', 'Z', '0', ' ', '"', '\\', '\'', 'é', ';', ':', '/', '.', '-', ',', '#', '!'];
        let inner: String = (0..self.next() % 24).map(|_| LETTERS[usize::from(self.next() % 16)]).collect();
        format!("x{inner}y")
    }
}

impl From<&[u8]> for Table {
    fn from(data: &[u8]) -> Self {
        let mut bytes = Bytes(data);
        let chains = CHAINS.into_iter().map(|name| (name, (0..bytes.next() % 5).map(|_| Rule::from(&mut bytes)).collect()));
        Table { chains: chains.collect() }
    }
}

impl Rule {
    fn from(bytes: &mut Bytes) -> Self {
        let kinds = bytes.next();
        let mut comments = Vec::new();
        if kinds & 1 != 0 {
            comments.push(format!("cali:{:016x}", bytes.number()));
        }
        comments.extend((0..(kinds >> 1) % 3).map(|_| bytes.text()));
        let mark = (kinds & 8 != 0).then(|| (bytes.number(), bytes.number(), bytes.next() & 1 != 0));
        let states = (kinds & 16 != 0).then(|| ([1, 2, 4, 6, 8, 15][usize::from(bytes.next() % 6)], bytes.next() & 1 != 0));
        let source = (kinds & 32 != 0).then(|| (bytes.number() | 1).to_le_bytes());
        let target = match bytes.next() % 8 {
            0 => Target::None,
            1 => Target::Accept,
            2 => Target::Drop,
            3 => Target::Return,
            4 => Target::Jump(usize::from(bytes.next()) % CHAINS.len(), false),
            5 => Target::Jump(usize::from(bytes.next()) % CHAINS.len(), true),
            6 => Target::Mark(bytes.number(), bytes.number()),
            _ => Target::Nflog(bytes.text()),
        };
        Rule { comments, mark, states, source, packets: u64::from(bytes.number()), target }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Table {
    /// Returns the text of `iptables-save -c`.
    pub fn text(&self) -> String {
        let mut text = String::from("*filter\n");
        self.chains.iter().for_each(|(name, _)| text += &format!(":{name} - [0:0]\n"));
        for (chain, rules) in &self.chains {
            rules.iter().for_each(|rule| text += &format!("[{}:0] -A {chain}{}\n", rule.packets, rule.text()));
        }
        text + "COMMIT\n"
    }

    /// Returns the entries of `IPT_SO_GET_ENTRIES`.
    pub fn entries(&self, family: Family) -> Vec<u8> {
        // The first pass finds each chain's first rule, which jumps need. The sizes do not depend on it.
        let (_, starts) = self.lay_out(family, &[0; CHAINS.len()]);
        self.lay_out(family, &starts).0
    }

    fn lay_out(&self, family: Family, starts: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut entries, mut found) = (Vec::new(), Vec::new());
        for (name, rules) in &self.chains {
            let mut header = name.as_bytes().to_vec();
            header.resize(32, 0);
            entry(&mut entries, family, &Rule::plain(), &[], &extension("ERROR", 0, &header));
            found.push(entries.len());
            for rule in rules {
                let size = entry_size(family, rule);
                let target = rule.legacy_target(starts, entries.len() + size);
                entry(&mut entries, family, rule, &rule.legacy_matches(), &target);
            }
            entry(&mut entries, family, &Rule::plain(), &[], &standard(-5));
        }
        entry(&mut entries, family, &Rule::plain(), &[], &extension("ERROR", 0, &[b"ERROR".as_slice(), &[0; 27]].concat()));
        (entries, found)
    }

    /// Returns a dump of nf_tables: with `native` expressions if iptables-nft has them, otherwise with `xt` ones.
    pub fn messages(&self, native: bool) -> Vec<u8> {
        let mut messages = Vec::new();
        for (chain, rules) in &self.chains {
            for rule in rules {
                let attributes = [string(1, "filter"), string(2, chain), attribute(4, &rule.expressions(native))].concat();
                messages.extend((20 + attributes.len() as u32).to_ne_bytes());
                messages.extend([0u8; 16]);
                messages.extend(attributes);
            }
        }
        messages
    }
}

impl Rule {
    fn plain() -> Self {
        Rule { comments: vec![], mark: None, states: None, source: None, packets: 0, target: Target::None }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some([a, b, c, d]) = self.source {
            text += &format!(" -s {a}.{b}.{c}.{d}/32");
        }
        self.comments.iter().for_each(|comment| text += &format!(" -m comment --comment {}", quoted(comment)));
        if let Some((value, mask, negated)) = self.mark {
            text += &format!(" -m mark{} --mark {value:#x}/{mask:#x}", if negated { " !" } else { "" });
        }
        if let Some((states, negated)) = self.states {
            let names = [(1, "INVALID"), (8, "NEW"), (4, "RELATED"), (2, "ESTABLISHED")];
            let names: Vec<&str> = names.into_iter().filter(|(bit, _)| states & bit != 0).map(|(_, name)| name).collect();
            text += &format!(" -m conntrack{} --ctstate {}", if negated { " !" } else { "" }, names.join(","));
        }
        text + &match &self.target {
            Target::None => String::new(),
            Target::Accept => " -j ACCEPT".into(),
            Target::Drop => " -j DROP".into(),
            Target::Return => " -j RETURN".into(),
            Target::Jump(to, goto) => format!(" -{} {}", if *goto { "g" } else { "j" }, CHAINS[*to]),
            Target::Mark(value, mask) => format!(" -j MARK --set-xmark {value:#x}/{mask:#x}"),
            Target::Nflog(prefix) => format!(" -j NFLOG --nflog-prefix {} --nflog-group 1", quoted(prefix)),
        }
    }

    /// Returns name, revision and payload of the `xt` matches.
    fn matches(&self) -> Vec<(&'static str, u32, Vec<u8>)> {
        let mut matches: Vec<(&str, u32, Vec<u8>)> = Vec::new();
        for comment in &self.comments {
            let mut text = comment.clone().into_bytes();
            text.resize(256, 0);
            matches.push(("comment", 0, text));
        }
        if let Some((value, mask, negated)) = self.mark {
            matches.push(("mark", 1, [&value.to_ne_bytes()[..], &mask.to_ne_bytes(), &[u8::from(negated), 0, 0, 0]].concat()));
        }
        if let Some((states, negated)) = self.states {
            let mut data = vec![0; 160];
            data[146..148].copy_from_slice(&1u16.to_ne_bytes());
            data[148..150].copy_from_slice(&u16::from(negated).to_ne_bytes());
            data[150..152].copy_from_slice(&states.to_ne_bytes());
            matches.push(("conntrack", 3, data));
        }
        matches
    }

    fn xt_target(&self) -> Option<(&'static str, u32, Vec<u8>)> {
        match &self.target {
            Target::Mark(value, mask) => Some(("MARK", 2, [value.to_ne_bytes(), mask.to_ne_bytes()].concat())),
            Target::Nflog(prefix) => {
                let mut data = [&[0; 12], prefix.as_bytes()].concat();
                data.resize(80, 0);
                Some(("NFLOG", 0, data))
            }
            _ => None,
        }
    }

    fn legacy_matches(&self) -> Vec<u8> {
        self.matches().into_iter().flat_map(|(name, revision, data)| extension(name, revision, &data)).collect()
    }

    fn legacy_target(&self, starts: &[usize], next: usize) -> Vec<u8> {
        match (&self.target, self.xt_target()) {
            (_, Some((name, revision, data))) => extension(name, revision, &data),
            (Target::Accept, _) => standard(-2),
            (Target::Drop, _) => standard(-1),
            (Target::Return, _) => standard(-5),
            (Target::Jump(to, _), _) => standard(starts[*to] as i32),
            _ => standard(next as i32),
        }
    }

    fn expressions(&self, native: bool) -> Vec<u8> {
        let mut list = Vec::new();
        let mut add = |name: &str, data: Vec<u8>| list.extend(attribute(1, &[string(1, name), attribute(2, &data)].concat()));
        if self.source.is_some() {
            add("payload", number(1, 8));
            add("cmp", [number(1, 8), number(2, 0), attribute(3, &attribute(1, &[1, 2, 3, 4]))].concat());
        }
        for (name, revision, data) in self.matches() {
            match name {
                // Not for masks of zero, which nft writes differently.
                "mark" if native => {
                    let (value, mask, negated) = self.mark.unwrap_or_default();
                    add("meta", [number(2, 3), number(1, 1)].concat());
                    let operand = |value: u32| attribute(1, &value.to_ne_bytes());
                    let registers = [number(1, 1), number(2, 1)].concat();
                    add("bitwise", [registers, attribute(4, &operand(mask)), attribute(5, &operand(0))].concat());
                    add("cmp", [number(1, 1), number(2, u32::from(negated)), attribute(3, &operand(value))].concat());
                }
                _ => add("match", [string(1, name), number(2, revision), attribute(3, &data)].concat()),
            }
        }
        add("counter", [attribute(1, &0u64.to_be_bytes()), attribute(2, &self.packets.to_be_bytes())].concat());
        let verdict = |code: i32, chain: Option<&str>| {
            let chain = chain.map(|chain| string(2, chain)).unwrap_or_default();
            [number(1, 0), attribute(2, &attribute(2, &[number(1, code as u32), chain].concat()))].concat()
        };
        match (&self.target, self.xt_target()) {
            (_, Some((name, revision, data))) => add("target", [string(1, name), number(2, revision), attribute(3, &data)].concat()),
            (Target::Accept, _) => add("immediate", verdict(1, None)),
            (Target::Drop, _) => add("immediate", verdict(0, None)),
            (Target::Return, _) => add("immediate", verdict(-5, None)),
            (Target::Jump(to, goto), _) => add("immediate", verdict(if *goto { -4 } else { -3 }, Some(CHAINS[*to]))),
            _ => {}
        }
        list
    }
}

fn entry_size(family: Family, rule: &Rule) -> usize {
    let header = if family == Family::V4 { 112 } else { 168 };
    header + rule.legacy_matches().len() + rule.legacy_target(&[0; CHAINS.len()], 0).len()
}

fn entry(entries: &mut Vec<u8>, family: Family, rule: &Rule, matches: &[u8], target: &[u8]) {
    let (header, offsets, counters, flags, goto) = match family {
        Family::V4 => (112, 88, 96, 82, 2),
        Family::V6 => (168, 140, 152, 131, 4),
    };
    let begin = entries.len();
    entries.resize(begin + header, 0);
    let entry = &mut entries[begin..];
    if let Some(source) = rule.source {
        entry[..4].copy_from_slice(&source);
    }
    if matches!(rule.target, Target::Jump(_, true)) {
        entry[flags] |= goto;
    }
    let target_offset = (header + matches.len()) as u16;
    entry[offsets..offsets + 2].copy_from_slice(&target_offset.to_ne_bytes());
    entry[offsets + 2..offsets + 4].copy_from_slice(&(target_offset + target.len() as u16).to_ne_bytes());
    entry[counters..counters + 8].copy_from_slice(&rule.packets.to_ne_bytes());
    entries.extend_from_slice(matches);
    entries.extend_from_slice(target);
}

/// Returns a match or target: size, name and revision before its data.
fn extension(name: &str, revision: u32, data: &[u8]) -> Vec<u8> {
    let mut all = ((32 + data.len()).next_multiple_of(8) as u16).to_ne_bytes().to_vec();
    all.extend(name.as_bytes());
    all.resize(31, 0);
    all.push(revision as u8);
    all.extend(data);
    all.resize(all.len().next_multiple_of(8), 0);
    all
}

fn standard(verdict: i32) -> Vec<u8> {
    extension("", 0, &[verdict.to_ne_bytes(), [0; 4]].concat())
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut all = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend(payload);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

fn string(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}
