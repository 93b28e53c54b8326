//! Reads the tables of one address family repeatedly, and keeps what each reader remembers of its last read. Touches what the readers
//! touch, and `/proc`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::presence::Presence;
use super::{ReadError, Source};
use crate::felix::names;
use crate::iptables::Programs;
use crate::kernel::{legacy, nft};
use crate::ruleset::{Backend, Family, Ruleset, Snapshot};

#[derive(Debug)]
pub struct FamilyReader {
    pub family: Family,
    legacy: HashMap<&'static str, legacy::Reader>,
    nft: HashMap<nft::Tables, nft::Reader>,
    /// The rules that `iptables-save` printed last.
    saved: HashMap<(Backend, &'static str), Arc<Ruleset>>,
}

pub struct How<'a> {
    pub backend: Backend,
    pub source: Source,
    pub programs: &'a Programs,
    pub presence: &'a Presence,
    pub deadline: Instant,
}

impl FamilyReader {
    pub fn new(family: Family) -> Self {
        FamilyReader { family, legacy: HashMap::new(), nft: HashMap::new(), saved: HashMap::new() }
    }

    /// Reads a dataplane: the filter table, and the others only if Calico has host endpoints.
    pub fn read(&mut self, how: &How<'_>) -> Result<Vec<Snapshot>, ReadError> {
        if how.backend == Backend::Native {
            return self.read_nft(nft::Tables::Calico, how.deadline);
        }
        let mut tables = self.read_table("filter", how)?;
        if tables.iter().any(|filter| names::has_host_endpoints(&filter.ruleset)) {
            for table in ["mangle", "raw"] {
                if how.presence.has(how.backend, self.family, table).map_err(|error| ReadError::Hidden(how.backend, error))? {
                    tables.extend(self.read_table(table, how)?);
                }
            }
        }
        Ok(tables)
    }

    fn read_table(&mut self, table: &'static str, how: &How<'_>) -> Result<Vec<Snapshot>, ReadError> {
        let (family, backend) = (self.family, how.backend);
        match (how.source, backend) {
            (Source::Save, _) => {
                let mut tables = how.programs.save(backend, family, table, how.deadline).map_err(ReadError::Save)?;
                tables.iter_mut().for_each(|table| self.remember(table));
                Ok(tables)
            }
            (Source::Kernel, Backend::Legacy) => {
                let reader = self.legacy.entry(table).or_insert_with(|| legacy::Reader::new(family, table));
                reader.read().map(|table| vec![table]).map_err(|error| ReadError::Kernel(backend, family, error))
            }
            (Source::Kernel, _) => self.read_nft(nft::Tables::Iptables(table), how.deadline),
        }
    }

    fn read_nft(&mut self, tables: nft::Tables, deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        let family = self.family;
        let reader = self.nft.entry(tables).or_insert_with(|| nft::Reader::new(family, tables));
        reader.read(deadline).map_err(|error| ReadError::Kernel(tables.backend(), family, error))
    }

    /// A text is parsed each time. If its rules equal the last ones, those are shared.
    fn remember(&mut self, table: &mut Snapshot) {
        let last = self.saved.entry((table.ruleset.backend, table.ruleset.table)).or_insert_with(|| Arc::clone(&table.ruleset));
        table.share_rules_of(last);
        *last = Arc::clone(&table.ruleset);
    }

    pub fn forget_all_but(&mut self, backend: Option<Backend>) {
        self.saved.retain(|(of, _), _| Some(*of) == backend);
        self.nft.retain(|tables, _| Some(tables.backend()) == backend);
        if backend != Some(Backend::Legacy) {
            self.legacy.clear();
        }
    }
}
