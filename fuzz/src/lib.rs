//! The fuzz targets. Each function takes any bytes, and fails if a decoder fails, or if two decoders disagree. `make test` runs them with
//! the stored corpora (`tests/it/fuzzed.rs`), and `cargo +nightly fuzz run <name>` searches for more.

mod outside;
mod table;

use std::sync::Arc;

use calico_accountant::felix::Structures;
use calico_accountant::iptables::text::{Parser, TextError};
use calico_accountant::kernel::{legacy, nft};
use calico_accountant::ruleset::{Backend, CommentId, Family, RuleId, Ruleset, Snapshot, Verdict};

pub use outside::{bpf_dump, etcd, http, kubeconfig, kubernetes, nft_json, saved};
use table::Table;

/// Interprets the rules, which must not fail for any rules.
fn understand(tables: &[Snapshot]) {
    Structures::default().update(tables.iter().map(|table| &table.ruleset));
}

/// The entries of a legacy table. The first two bytes determine where the second read differs from the first.
pub fn legacy(data: &[u8]) {
    let Some((&[family, place], entries)) = data.split_first_chunk() else { return };
    let family = Family::ALL[usize::from(family % 2)];
    let mut lasting = legacy::Reader::new(family, "filter");
    let mut again = entries.to_vec();
    if let Some(byte) = again.iter_mut().rev().nth(usize::from(place) * 3) {
        *byte ^= 1 << (place % 8);
    }
    for entries in [entries, entries, &again] {
        let read = lasting.take(entries);
        assert_eq!(read, legacy::Reader::new(family, "filter").take(entries));
        understand(&[read]);
    }
}

/// Messages of an nf_tables dump.
pub fn netlink(data: &[u8]) {
    for tables in [nft::Tables::Iptables("filter"), nft::Tables::Calico] {
        understand(&nft::decode(Family::V4, tables, data));
    }
}

/// The text of `iptables-save`. The result must not depend on the size of the pieces, which the first byte determines.
pub fn text(data: &[u8]) {
    let Some((&length, text)) = data.split_first() else { return };
    let parse = |length: usize| -> Result<Snapshot, TextError> {
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        text.chunks(length).for_each(|piece| parser.push(piece));
        parser.finish()
    };
    let whole = parse(text.len().max(1));
    assert_eq!(whole, parse(usize::from(length) + 1));
    whole.iter().for_each(|table| understand(std::slice::from_ref(table)));
}

/// One table as the text of iptables-save and in all of the kernel's formats. All readers must agree.
pub fn agree(data: &[u8]) {
    let table = Table::from(data);
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    parser.push(table.text().as_bytes());
    let text = parser.finish().expect("a whole table");
    for family in Family::ALL {
        let entries = table.entries(family);
        compare(&text, &legacy::Reader::new(family, "filter").take(&entries), &table);
    }
    for native in [false, true] {
        let read = nft::decode(Family::V4, nft::Tables::Iptables("filter"), &table.messages(native));
        assert!(read.len() <= 1);
        read.iter().for_each(|read| compare(&text, read, &table));
        understand(&read);
    }
    understand(&[text]);
}

/// Compares the content of both tables. A dump of rules does not contain empty chains.
fn compare(text: &Snapshot, read: &Snapshot, table: &Table) {
    assert_eq!((text.ruleset.unreadable, read.ruleset.unreadable), (0, 0), "{}", table.text());
    for chain in text.ruleset.chains().iter().filter(|chain| !chain.rules.is_empty()) {
        let other = read.ruleset.chains().iter().find(|other| other.name == chain.name).expect("the same chains");
        assert_eq!(text.counts_of(chain), read.counts_of(other), "{}", table.text());
        assert_eq!(chain.rules.len(), other.rules.len(), "{}", table.text());
        for (one, two) in chain.rule_ids().zip(other.rule_ids()) {
            assert_eq!(contents(&text.ruleset, one), contents(&read.ruleset, two), "{}", table.text());
        }
    }
}

/// Formats a rule without its reader's internal IDs of names and comments.
fn contents(ruleset: &Ruleset, id: RuleId) -> (String, Vec<Arc<str>>) {
    let rule = ruleset.rule(id);
    let comment = |id: &CommentId| Arc::clone(&ruleset.comments()[id.0 as usize]);
    let verdict = match rule.verdict {
        Verdict::Jump(to) => format!("jump {}", ruleset.chain(to).name),
        Verdict::Goto(to) => format!("goto {}", ruleset.chain(to).name),
        Verdict::Nflog(prefix) => format!("nflog {:?}", prefix.as_ref().map(comment)),
        other => format!("{other:?}"),
    };
    let text = format!("{:?} {:?} {:?} {} {verdict}", ruleset.hash(id), rule.mark, rule.ctstate, rule.other_matches);
    (text, ruleset.comments_of(id).iter().map(comment).collect())
}
