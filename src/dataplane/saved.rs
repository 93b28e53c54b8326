//! Reads tables from files: the output of `iptables-save -c`, `ip6tables-save -c` or `nft list ruleset`, with `-j` or without. A file may
//! hold several, and may be packed with gzip or tar → one [`Ruleset`](crate::ruleset::Ruleset) for each table. Pure, except for the log.
//! The format is detected from the content.

mod texts;

use log::warn;

use crate::felix::names;
use crate::iptables::text::{Parser, TextError};
use crate::nftables;
use crate::ruleset::{Backend, Family, Snapshot};
use texts::Content;

/// The maximum size that is unpacked, in bytes.
pub const LARGEST: u64 = 1 << 30;

/// Why a file gives no tables.
#[derive(Debug)]
enum Problem {
    /// It is something else.
    Other(String),
    /// It holds none of Calico's tables, as an IPv6 file may, or is a member of a tar that cannot be opened. Other files may hold some.
    Nothing(String),
    Broken(String),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Broken(text)
    }
}

/// Returns the tables that these files hold together. `files` has each file's name and content. If only some files lack Calico's chains,
/// they are logged and skipped.
pub fn moment(files: &[(String, Vec<u8>)]) -> Result<Vec<Snapshot>, String> {
    let (mut all, mut left_out): (Vec<(Snapshot, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for (file, bytes) in files {
        for (name, read) in in_file(file, bytes)? {
            match read {
                Ok(tables) => tables.into_iter().try_for_each(|read| add(&mut all, read, &name))?,
                Err(Problem::Nothing(problem)) => left_out.push(format!("{name}: {problem}")),
                Err(Problem::Other(problem) | Problem::Broken(problem)) => return Err(format!("{name}: {problem}")),
            }
        }
    }
    match left_out.first().filter(|_| all.is_empty()) {
        Some(problem) => return Err(problem.clone()),
        None => left_out.iter().for_each(|problem| warn!("{problem}; it is left out")),
    }
    let mut tables: Vec<Snapshot> = all.into_iter().map(|(read, _)| read).collect();
    tables.sort_by_key(|read| (read.ruleset.family, read.ruleset.table));
    Ok(tables)
}

fn add(all: &mut Vec<(Snapshot, String)>, read: Snapshot, file: &str) -> Result<(), String> {
    if let Some((_, first)) = all.iter().find(|(known, _)| known.ruleset.id() == read.ruleset.id()) {
        let (table, family) = (read.ruleset.table, read.ruleset.family.as_str());
        return Err(format!("{file}: the table {table} ({family}) is also in {first}; one moment has each table once"));
    }
    all.push((read, file.to_owned()));
    Ok(())
}

type Read = (String, Result<Vec<Snapshot>, Problem>);

/// Reads a file, or those files of a tar that hold tables. A tar may contain many other files.
fn in_file(file: &str, bytes: &[u8]) -> Result<Vec<Read>, String> {
    let members = match texts::open(bytes).map_err(|problem| format!("{file}: {problem}"))? {
        Content::Text(text) => return Ok(vec![(file.to_owned(), tables(file, &text))]),
        Content::Archive(members) => members,
    };
    let read = members.iter().map(|(name, bytes)| {
        let read = match texts::open(bytes) {
            Ok(Content::Text(text)) => tables(name, &text),
            Ok(Content::Archive(_)) => Err(Problem::Nothing("it is a tar within a tar".into())),
            Err(problem) => Err(Problem::Nothing(problem)),
        };
        (format!("{file}: {name}"), read)
    });
    let held: Vec<Read> = read.filter(|(_, read)| !matches!(read, Err(Problem::Other(_)))).collect();
    match held.is_empty() {
        true => Err(format!("{file}: none of the {} files in it is what iptables-save -c or nft list ruleset prints", members.len())),
        false => Ok(held),
    }
}

fn tables(file: &str, bytes: &[u8]) -> Result<Vec<Snapshot>, Problem> {
    let text = bytes.trim_ascii_start();
    if text.is_empty() {
        return Err(Problem::Other("it is empty".into()));
    }
    let sections = sections(bytes);
    let tables = match text {
        // A JSON object may be anything. A truncated ruleset still begins like one.
        [b'{', ..] => nftables::parse(text).map_err(|problem| match text.windows(10).take(20).any(|word| word == b"\"nftables\"") {
            true => of_nft(problem),
            false => Problem::Other(problem),
        })?,
        _ if is_nft(text) => nftables::text::parse(text).map_err(of_nft)?,
        _ if sections.is_empty() => {
            let unknown = || Problem::Other("neither what iptables-save -c nor what nft list ruleset prints".into());
            return Err(incompatible(bytes).map_or_else(unknown, |error| error.to_string().into()));
        }
        _ => of_iptables(file, bytes, sections)?,
    };
    match tables.is_empty() {
        true => Err(Problem::Nothing("none of Calico's chains is in it".into())),
        false => Ok(tables),
    }
}

fn of_nft(problem: String) -> Problem {
    if problem == nftables::ELSEWHERE { Problem::Nothing(problem) } else { Problem::Broken(problem) }
}

/// The first line may be a comment in which nft names a table's owner.
fn is_nft(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    lines.next().is_some_and(|line| line.starts_with(b"table ") && line.contains(&b'{'))
}

fn of_iptables(file: &str, bytes: &[u8], sections: Vec<Section>) -> Result<Vec<Snapshot>, String> {
    let guess = guess_family(file, bytes);
    let mut tables = Vec::new();
    for section in sections {
        let Some(table) = ["filter", "mangle", "raw"].into_iter().find(|table| table.as_bytes() == section.table) else { continue };
        let mut parser = Parser::new(section.family.unwrap_or(guess), section.backend, table);
        parser.push(section.text);
        let read = parser.finish().map_err(|error| error.to_string())?;
        if !read.ruleset.chains().is_empty() {
            if has_no_counters(section.text) {
                return Err("its rules were saved without their counters; use iptables-save -c".into());
            }
            tables.push(read);
        }
    }
    Ok(without_noise(tables))
}

struct Section<'a> {
    family: Option<Family>,
    backend: Backend,
    table: &'a [u8],
    text: &'a [u8],
}

/// Splits a text at the start of each table. The comment that `iptables-save` writes before a table gives its family and back end.
fn sections(bytes: &[u8]) -> Vec<Section<'_>> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut family, mut backend, mut is_open) = (None, Backend::Legacy, false);
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        if line.starts_with(b"# Generated by ") {
            let line = String::from_utf8_lossy(line);
            family = Some(if line.contains("ip6tables") { Family::V6 } else { Family::V4 });
            let is_nft = ["nf_tables", "nft-save", "xtables-"].iter().any(|word| line.contains(word));
            backend = if is_nft { Backend::Nft } else { Backend::Legacy };
            is_open = false;
        } else if let Some(table) = line.strip_prefix(b"*") {
            sections.push(Section { family, backend, table: table.trim_ascii_end(), text: &bytes[start..end] });
            is_open = true;
        } else if let Some(section) = sections.last_mut().filter(|_| is_open) {
            let begun = at - line.len() - section.text.len();
            section.text = &bytes[begun..end];
        }
    }
    sections
}

/// Returns the line that iptables-nft prints for a table that it does not understand.
fn incompatible(bytes: &[u8]) -> Option<TextError> {
    let line = bytes.split(|byte| *byte == b'\n').find(|line| line.windows(15).any(|word| word == b"is incompatible"))?;
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]).trim_start_matches(['#', ' ']).to_owned();
    Some(TextError::Incompatible(line))
}

/// Guesses the family of a text that does not state it, from the names of Calico's IP sets or from the file's name.
fn guess_family(file: &str, bytes: &[u8]) -> Family {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    match (has(b"cali40"), has(b"cali60")) {
        (true, false) => Family::V4,
        (false, true) => Family::V6,
        _ if has(b"ipv6-icmp") || file.contains("ip6") => Family::V6,
        _ => Family::V4,
    }
}

fn has_no_counters(text: &[u8]) -> bool {
    let mut rules = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"-A ") || line.starts_with(b"["));
    rules.next().is_some_and(|line| line.starts_with(b"-A "))
}

/// Removes tables other than the filter table if there are no host endpoints. Only the filter table has policies then, and the exporter
/// does not read the others either.
fn without_noise(mut tables: Vec<Snapshot>) -> Vec<Snapshot> {
    let with_hosts = tables.iter().filter(|read| read.ruleset.table == "filter" && names::has_host_endpoints(&read.ruleset));
    let with_hosts: Vec<Family> = with_hosts.map(|read| read.ruleset.family).collect();
    tables.retain(|read| read.ruleset.table == "filter" || with_hosts.contains(&read.ruleset.family));
    tables
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const RULES: &str = "*filter\n:cali-tw-cali1 - [0:0]\n[3:1] -A cali-tw-cali1 -j RETURN\nCOMMIT\n";

    fn files(texts: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn kinds(texts: &[(&str, &str)]) -> Vec<(Family, Backend, &'static str)> {
        let read = moment(&files(texts)).unwrap();
        read.iter().map(|read| (read.ruleset.family, read.ruleset.backend, read.ruleset.table)).collect()
    }

    #[test]
    fn what_a_text_is_is_seen_from_its_content() {
        for (name, head, tail, family, backend) in [
            ("a", "", "", Family::V4, Backend::Legacy),
            ("ip6.txt", "", "", Family::V6, Backend::Legacy),
            ("ip6.txt", "", "# cali40s", Family::V4, Backend::Legacy),
            ("a", "$ ip6tables-save -c\n", "# --match-set cali60s:x", Family::V6, Backend::Legacy),
            ("a", "# Generated by iptables-save v1.8.9 on Mon\n", "", Family::V4, Backend::Legacy),
            ("ip6", "# Generated by iptables-save v1.8.9 (nf_tables) on Mon\n", "", Family::V4, Backend::Nft),
            ("a", "# Generated by ip6tables-nft-save v1.8.2 on Mon\r\n", "", Family::V6, Backend::Nft),
            ("a", "# Generated by ip6tables-save v1.8.9 (legacy) on Mon\n", "", Family::V6, Backend::Legacy),
        ] {
            assert_eq!(kinds(&[(name, &format!("{head}{RULES}{tail}"))]), [(family, backend, "filter")], "{name} {head}");
        }
    }

    #[test]
    fn several_tables_in_one_file_or_in_several() {
        let text = |program: &str| format!("# Generated by {program} v1.8.9 on Mon\n{RULES}# Completed on Mon\n");
        let (v4, v6) = (text("iptables-save"), text("ip6tables-save"));
        let both = [(Family::V4, Backend::Legacy, "filter"), (Family::V6, Backend::Legacy, "filter")];
        assert_eq!(kinds(&[("a", &format!("{v6}{v4}"))]), both);
        assert_eq!(kinds(&[("a", &v6), ("b", &v4)]), both);
        // Other tables matter only with host endpoints.
        let mangle = v4.replace("*filter", "*mangle");
        assert_eq!(kinds(&[("a", &format!("{v4}{mangle}"))]), both[..1]);
        let host = v4.replace("cali-tw-cali1", "cali-th-eth0");
        assert_eq!(kinds(&[("a", &format!("{host}{mangle}"))]).len(), 2);
    }

    #[test]
    fn compressed_text_is_unpacked() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(RULES.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(moment(&[("a.gz".into(), packed.clone())]).unwrap()[0].ruleset.rule_count(), 1);
        let error = moment(&[("a.gz".into(), packed[..20].to_vec())]).unwrap_err();
        assert!(error.starts_with("a.gz: cannot be unpacked: "), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (texts, expected) in [
            (&[("a", " \n")][..], "a: it is empty"),
            (&[("a", "hello")], "a: neither what iptables-save -c nor what nft list ruleset prints"),
            (&[("a", "table ip calico {\n}")], "a: none of Calico's chains is in it"),
            (&[("a", "table ip calico {\n")], "a: the output ends within table ip calico"),
            (&[("a", RULES), ("b", "hello")], "b: neither what iptables-save -c nor what nft list ruleset prints"),
            (&[("a", RULES), ("b", "{}")], "b: not what nft -j prints: there is no \"nftables\" in it at line 1 column 2"),
            (&[("a", "BZh9")], "a: it is packed by bzip2; unpack it first: bzip2 -d"),
            (&[("a", "{}")], "a: not what nft -j prints: there is no \"nftables\" in it at line 1 column 2"),
            (&[("a", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")], "a: none of Calico's chains is in it"),
            (&[("a", &RULES[..60])], "a: the output ends within table filter, before its COMMIT"),
            (&[("a", &RULES.replace("[3:1] ", ""))], "a: its rules were saved without their counters; use iptables-save -c"),
            (&[("a", RULES), ("b", RULES)], "b: the table filter (ipv4) is also in a; one moment has each table once"),
            (
                &[("a", "# Table `filter' is incompatible, use 'nft' tool.\n")],
                "a: it says \"Table `filter' is incompatible, use 'nft' tool.\": rules in that table are not iptables': another \
                 program wrote some by nft, or a newer iptables wrote Calico's. SOURCE=kernel reads them, and nft -j list ruleset saves them",
            ),
        ] {
            assert_eq!(moment(&files(texts)).unwrap_err(), expected);
        }
    }
}
