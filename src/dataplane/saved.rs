//! Tables out of files: what `iptables-save -c`, `ip6tables-save -c` or `nft -j list ruleset` printed, compressed or not, one or several in
//! a file → one [`Ruleset`](crate::ruleset::Ruleset) a table. Pure: bytes in; what they are is seen from their content.

use std::fmt;
use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::iptables::text::{Parser, TextError};
use crate::nftables::{self, JsonError};
use crate::ruleset::{Backend, Family, Snapshot};

/// More than this is not unpacked.
pub const LARGEST: u64 = 1 << 30;

#[derive(Debug)]
pub struct SavedError {
    file: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Empty,
    TooLarge,
    Unpacking(std::io::Error),
    NftWithoutJson,
    Unknown,
    NoCounters,
    NoCalico,
    Twice(Family, &'static str, String),
    Text(TextError),
    Json(JsonError),
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match &self.problem {
            Problem::Empty => f.write_str("it is empty"),
            Problem::TooLarge => write!(f, "it is larger than {} MiB", LARGEST >> 20),
            Problem::Unpacking(error) => write!(f, "cannot be unpacked: {error}"),
            Problem::NftWithoutJson => f.write_str("this is what nft prints without -j; use nft -j list ruleset"),
            Problem::Unknown => f.write_str("neither what iptables-save -c nor what nft -j list ruleset prints"),
            Problem::NoCounters => f.write_str("its rules were saved without their counters; use iptables-save -c"),
            Problem::NoCalico => f.write_str("none of Calico's chains is in it"),
            Problem::Twice(family, table, first) => {
                write!(f, "the table {table} ({}) is in {first}, too; one moment has each table once", family.as_str())
            }
            Problem::Text(error) => error.fmt(f),
            Problem::Json(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SavedError {}

/// The tables that these files hold together: name and content of each.
pub fn moment(files: &[(String, Vec<u8>)]) -> Result<Vec<Snapshot>, SavedError> {
    let mut all: Vec<(Snapshot, &str)> = Vec::new();
    for (file, bytes) in files {
        let failed = |problem| SavedError { file: file.clone(), problem };
        let tables = tables(file, bytes).map_err(failed)?;
        if tables.is_empty() {
            return Err(failed(Problem::NoCalico));
        }
        for read in tables {
            if let Some((_, first)) = all.iter().find(|(known, _)| known.ruleset.id() == read.ruleset.id()) {
                return Err(failed(Problem::Twice(read.ruleset.family, read.ruleset.table, (*first).to_owned())));
            }
            all.push((read, file));
        }
    }
    let mut tables: Vec<Snapshot> = all.into_iter().map(|(read, _)| read).collect();
    tables.sort_by_key(|read| (read.ruleset.family, read.ruleset.table));
    Ok(tables)
}

/// The tables of one file that hold some of Calico's chains.
fn tables(file: &str, bytes: &[u8]) -> Result<Vec<Snapshot>, Problem> {
    let unpacked = unpacked(bytes)?;
    let bytes = unpacked.as_deref().unwrap_or(bytes);
    let first = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or(Problem::Empty)?;
    if bytes[first] == b'{' {
        return nftables::parse(bytes).map_err(Problem::Json);
    }
    let sections = sections(bytes);
    if sections.is_empty() {
        let nft = bytes[first..].starts_with(b"table ");
        return Err(if nft { Problem::NftWithoutJson } else { incompatible(bytes).unwrap_or(Problem::Unknown) });
    }
    let guess = guess_family(file, bytes);
    let mut tables = Vec::new();
    for section in sections {
        let Some(table) = ["filter", "mangle", "raw"].into_iter().find(|table| table.as_bytes() == section.table) else { continue };
        let mut parser = Parser::new(section.family.unwrap_or(guess), section.backend, table);
        parser.push(section.text);
        let read = parser.finish().map_err(Problem::Text)?;
        if !read.ruleset.chains().is_empty() {
            if has_no_counters(section.text) {
                return Err(Problem::NoCounters);
            }
            tables.push(read);
        }
    }
    Ok(without_noise(tables))
}

fn unpacked(bytes: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(None);
    }
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes).take(LARGEST + 1).read_to_end(&mut unpacked).map_err(Problem::Unpacking)?;
    if unpacked.len() as u64 > LARGEST { Err(Problem::TooLarge) } else { Ok(Some(unpacked)) }
}

struct Section<'a> {
    /// As the text's head says it, if there is one.
    family: Option<Family>,
    backend: Backend,
    table: &'a [u8],
    /// From its name on.
    text: &'a [u8],
}

/// A text is cut where a table begins; what `iptables-save` says in front of it tells what it is.
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

/// The line that iptables-nft prints where it does not understand a table.
fn incompatible(bytes: &[u8]) -> Option<Problem> {
    let line = bytes.split(|byte| *byte == b'\n').find(|line| line.windows(15).any(|word| word == b"is incompatible"))?;
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]).trim_start_matches(['#', ' ']).to_owned();
    Some(Problem::Text(TextError::Incompatible { line }))
}

/// The family of a text that does not say it: Calico's IP sets do, or the file's name.
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

/// Without host endpoints, only the filter table has policies: the exporter does not read the others then, either.
fn without_noise(mut tables: Vec<Snapshot>) -> Vec<Snapshot> {
    let is_host_endpoint = |name: &str| name.starts_with("cali-th-") || name.starts_with("cali-fh-");
    let with_hosts: Vec<Family> = tables
        .iter()
        .map(|read| &read.ruleset)
        .filter(|ruleset| ruleset.table == "filter" && ruleset.chains().iter().any(|chain| is_host_endpoint(&chain.name)))
        .map(|ruleset| ruleset.family)
        .collect();
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
        moment(&files(texts))
            .unwrap()
            .iter()
            .map(|read| &read.ruleset)
            .map(|ruleset| (ruleset.family, ruleset.backend, ruleset.table))
            .collect()
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
        let error = moment(&[("a.gz".into(), packed[..20].to_vec())]).unwrap_err().to_string();
        assert!(error.starts_with("a.gz: cannot be unpacked: "), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (texts, expected) in [
            (&[("a", " \n")][..], "a: it is empty"),
            (&[("a", "hello")], "a: neither what iptables-save -c nor what nft -j list ruleset prints"),
            (&[("a", "table ip calico {\n}")], "a: this is what nft prints without -j; use nft -j list ruleset"),
            (&[("a", "{}")], "a: not what nft -j prints: there is no \"nftables\" in it at line 1 column 2"),
            (&[("a", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")], "a: none of Calico's chains is in it"),
            (&[("a", &RULES[..60])], "a: the output ends within table filter, before its COMMIT"),
            (&[("a", &RULES.replace("[3:1] ", ""))], "a: its rules were saved without their counters; use iptables-save -c"),
            (&[("a", RULES), ("b", RULES)], "b: the table filter (ipv4) is in a, too; one moment has each table once"),
            (
                &[("a", "# Table `filter' is incompatible, use 'nft' tool.\n")],
                "a: it says \"Table `filter' is incompatible, use 'nft' tool.\": this iptables is older than the one that wrote Calico's \
                 rules; use one at least as new",
            ),
        ] {
            assert_eq!(moment(&files(texts)).unwrap_err().to_string(), expected);
        }
    }
}
