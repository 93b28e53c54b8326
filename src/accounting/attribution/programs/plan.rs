//! From programs: what their rules are, and the grids in which they count. Rebuilt only when a program changes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::node::RuleKey;
use super::super::totals::{Item, Verdict};
use crate::ebpf::{IdMap, Known, Owner, Policy, Program, Rule, RuleId, Shown, UNNUMBERED};
use crate::felix::{Decision, Direction, DropReason};

/// What happens to a packet, as far as interfaces count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Accepted,
    Refused,
    /// A policy passes it. No interface counts that.
    Passed,
}

#[derive(Debug)]
pub struct Named {
    pub id: RuleId,
    pub known: Known,
    pub rule: Option<RuleKey>,
    pub decided: Option<(Direction, Item)>,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// What ids stand for, grouped by policy.
    pub rules: Vec<Named>,
    /// The index in `rules` of every id; `None` if programs contradict each other.
    pub places: IdMap<Option<usize>>,
    pub grids: Vec<Grid>,
    pub workloads: Vec<Arc<Program>>,
    pub policies: HashSet<Arc<Policy>>,
    /// By interface: the policies that apply to a workload, for each direction in the order of evaluation.
    pub applied: HashMap<Arc<str>, [Vec<Arc<Policy>>; 2]>,
    pub is_understood: bool,
}

/// All workloads of a direction, and all that can decide about their packets in the way of a class.
#[derive(Debug)]
pub struct Grid {
    pub direction: Direction,
    pub class: Class,
    pub rows: Vec<Arc<str>>,
    pub columns: Vec<Column>,
    pub cells: Vec<Vec<usize>>,
    /// For each row: the item for packets that one of several accepted, if it is not certain which.
    pub together: Vec<Option<Item>>,
    pub tiers: Vec<Vec<InTier>>,
}

/// The policies that a workload has in a tier and that decide in the grid's way.
#[derive(Debug)]
pub struct InTier {
    pub tier: Arc<str>,
    /// Where their columns are among the row's cells.
    pub cells: Vec<usize>,
    /// The item for packets that one of several decided, if it is not certain which.
    pub together: Option<Item>,
}

/// A policy, or something else that decides. All its rules with the same decision count together.
#[derive(Debug, Default)]
pub struct Column {
    /// What it is shown as; `None` for what does not belong to a workload, such as policies of host endpoints.
    pub item: Option<Item>,
    pub ids: Vec<RuleId>,
    /// Whether its rules also count elsewhere: for host endpoints, or together with others.
    pub elsewhere: bool,
}

impl Plan {
    pub fn new(programs: &[Shown]) -> Self {
        let known = known(programs);
        let live = || programs.iter().filter(|shown| shown.is_live).map(|shown| &shown.program);
        let workloads: Vec<Arc<Program>> = live().filter(|program| program.is_workload).cloned().collect();
        let is_understood = workloads.iter().all(|program| program.unrecognised == 0 && program.rules.iter().any(|rule| rule.counts));
        let hosts = ids(programs, |_, rule| rule.counts && !rule.is_workloads);
        // Rules with hits that are not counted, or not all: those of XDP programs.
        let uncounted = ids(programs, |program, _| !program.is_counted);
        let mut grids = Vec::new();
        for direction in Direction::ALL {
            let programs: Vec<&Program> =
                workloads.iter().map(|program| &**program).filter(|program| program.direction == direction).collect();
            let grid = |class| Grid::new(&programs, direction, class, |id| hosts.contains(&id) || !matches!(known.get(&id), Some(Some(_))));
            grids.extend([Class::Accepted, Class::Refused, Class::Passed].map(grid));
        }
        let mut policies: HashSet<Arc<Policy>> =
            live().flat_map(|program| &program.policies).map(|(policy, _)| Arc::clone(policy)).collect();
        let (mut rules, mut places) = (Vec::with_capacity(known.len()), IdMap::default());
        for (id, known) in known {
            places.insert(id, None);
            let named = known.map(|known| Named::new(id, known.clone()));
            rules.extend(named.map(|named| if uncounted.contains(&id) { Named { rule: None, decided: None, ..named } } else { named }));
        }
        rules.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        places.extend(rules.iter().enumerate().map(|(place, rule)| (rule.id, Some(place))));
        policies.extend(rules.iter().filter_map(Named::policy).cloned());
        let applied = applied(&workloads);
        Plan { rules, places, grids, workloads, policies, applied, is_understood }
    }

    pub fn rule(&self, id: RuleId) -> Option<&Named> {
        self.places.get(&id).copied().flatten().map(|place| &self.rules[place])
    }
}

fn applied(workloads: &[Arc<Program>]) -> HashMap<Arc<str>, [Vec<Arc<Policy>>; 2]> {
    let mut applied: HashMap<Arc<str>, [Vec<Arc<Policy>>; 2]> = HashMap::new();
    for program in workloads {
        let policies = &mut applied.entry(Arc::clone(&program.interface)).or_default()[program.direction as usize];
        for (policy, _) in program.policies.iter().filter(|(_, is_workloads)| *is_workloads) {
            // The program of the other address family has the same policies.
            if !policies.contains(policy) {
                policies.push(Arc::clone(policy));
            }
        }
    }
    applied
}

/// Returns what ids stand for; `None` if programs differ. The same policy has the same ids in all programs. If not, one of the files is
/// old: Felix numbers rules again when it restarts with flow logs.
fn known(programs: &[Shown]) -> IdMap<Option<&Known>> {
    let mut known: IdMap<Option<&Known>> = IdMap::default();
    let rules = || programs.iter().flat_map(|shown| &shown.program.rules).filter(|rule| rule.id != UNNUMBERED);
    for rule in rules().filter(|rule| rule.counts) {
        let before = known.entry(rule.id).or_insert(Some(&rule.known));
        if before.is_some_and(|before| *before != rule.known) {
            *before = None;
        }
    }
    for rule in rules().filter(|rule| !rule.counts) {
        known.entry(rule.id).or_insert(Some(&rule.known));
    }
    known
}

fn ids(programs: &[Shown], is_wanted: fn(&Program, &Rule) -> bool) -> HashSet<RuleId> {
    let programs = programs.iter().map(|shown| &*shown.program);
    programs.flat_map(|program| program.rules.iter().filter(|rule| is_wanted(program, rule))).map(|rule| rule.id).collect()
}

impl Grid {
    fn new(programs: &[&Program], direction: Direction, class: Class, elsewhere: impl Fn(RuleId) -> bool) -> Self {
        let (rows, columns, cells) = (Vec::new(), Vec::new(), Vec::new());
        let mut grid = Grid { direction, class, rows, columns, cells, together: Vec::new(), tiers: Vec::new() };
        let (mut rows, mut columns, mut tiers) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        // The programs of both address families of an interface count together.
        for program in programs {
            let row = *rows.entry(&program.interface).or_insert_with(|| {
                grid.rows.push(Arc::clone(&program.interface));
                grid.cells.push(Vec::new());
                grid.rows.len() - 1
            });
            let own = program.policies.iter().filter(|(_, is_workloads)| *is_workloads);
            tiers.entry(row).or_insert_with(BTreeSet::new).extend(own.map(|(policy, _)| Arc::clone(&policy.tier)));
            for rule in program.rules.iter().filter(|rule| decides(rule, class)) {
                let item = item(&rule.known).filter(|_| rule.is_workloads);
                let key = (item.clone(), item.is_none().then_some(rule.id));
                let column = *columns.entry(key).or_insert_with(|| {
                    grid.columns.push(Column { item, ..Column::default() });
                    grid.columns.len() - 1
                });
                grid.columns[column].ids.push(rule.id);
                grid.columns[column].elsewhere |= elsewhere(rule.id);
                if !grid.cells[row].contains(&column) {
                    grid.cells[row].push(column);
                }
            }
        }
        for column in &mut grid.columns {
            column.ids.sort_unstable();
            column.ids.dedup();
        }
        let together = |cells: &Vec<usize>| together(class, cells.iter().map(|column| &grid.columns[*column]));
        grid.together = grid.cells.iter().map(together).collect();
        let in_tiers = |(row, tiers): (usize, BTreeSet<Arc<str>>)| tiers.into_iter().map(|tier| grid.in_tier(row, tier)).collect();
        grid.tiers = tiers.into_iter().map(in_tiers).collect();
        grid
    }

    fn in_tier(&self, row: usize, tier: Arc<str>) -> InTier {
        let own = self.cells[row].iter().enumerate().filter_map(|(place, column)| match &self.columns[*column].item {
            Some(Item::Policy { tier: of, policy, .. }) if *of == tier => Some((place, &**policy)),
            _ => None,
        });
        let (cells, names): (Vec<usize>, Vec<&str>) = own.unzip();
        let policy = |tier| Item::Policy { tier, policy: names.join(",").into(), verdict: Verdict::Deny };
        let together = (names.len() > 1).then(|| policy(Arc::clone(&tier)));
        InTier { tier, cells, together }
    }
}

/// Stands for a profile if Felix does not give its name. No policy can have this name.
const NAMELESS_PROFILE: &str = "(profile)";

/// Returns the item for all that may have accepted a packet, with their names joined by commas.
fn together<'a>(class: Class, columns: impl Iterator<Item = &'a Column>) -> Option<Item> {
    let (mut names, mut tiers, mut count) = (Vec::new(), Vec::<&str>::new(), 0);
    for column in columns {
        count += 1;
        match &column.item {
            Some(Item::Policy { tier, policy, .. }) => {
                names.push(&**policy);
                if !tiers.contains(&&**tier) {
                    tiers.push(tier);
                }
            }
            Some(Item::Profile(profile)) if profile.is_empty() => names.push(NAMELESS_PROFILE),
            Some(Item::Profile(profile)) => names.push(profile),
            _ => {}
        }
    }
    let item = || Item::Policy { tier: tiers.join(",").into(), policy: names.join(",").into(), verdict: Verdict::Accept };
    (class == Class::Accepted && count > 1).then(item)
}

/// Whether a rule's hits belong to this class. What a host endpoint's policy accepts or passes is not decided yet.
fn decides(rule: &Rule, class: Class) -> bool {
    let of_class = match class {
        Class::Accepted => rule.known.decision == Decision::Accept && rule.is_workloads,
        Class::Refused => rule.known.decision == Decision::Deny,
        Class::Passed => rule.known.decision == Decision::Pass && rule.is_workloads && matches!(rule.known.owner, Owner::Policy(..)),
    };
    rule.counts && of_class
}

/// Returns what a rule's hits are shown as; `None` if it decides nothing, or if it is a profile's and does not accept.
fn item(Known { owner, decision, .. }: &Known) -> Option<Item> {
    let verdict = verdict(*decision)?;
    match owner {
        Owner::Policy(policy, _) => {
            let Policy { tier, label, .. } = &**policy;
            Some(Item::Policy { tier: Arc::clone(tier), policy: Arc::clone(label), verdict })
        }
        Owner::Profile(name) if verdict == Verdict::Accept => Some(Item::Profile(name.clone().unwrap_or_default())),
        Owner::EndOfTier(tier) if verdict == Verdict::Deny => Some(Item::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(tier) }),
        Owner::NoProfile => Some(Item::Drop { reason: DropReason::NoProfile, tier: "".into() }),
        Owner::EndOfTier(_) | Owner::Profile(_) => None,
    }
}

impl Named {
    pub fn new(id: RuleId, known: Known) -> Self {
        let Known { owner, decision, direction } = &known;
        let item = item(&known).filter(|item| !matches!(item, Item::Profile(_)));
        let rule = match (owner, verdict(*decision)) {
            (Owner::Policy(policy, index), Some(_)) => {
                Some(RuleKey { policy: Arc::clone(&policy.label), direction: *direction, family: None, index: *index, decision: *decision })
            }
            _ => None,
        };
        let decided = item.map(|item| (*direction, item));
        Named { id, known, rule, decided }
    }

    pub fn policy(&self) -> Option<&Arc<Policy>> {
        match &self.known.owner {
            Owner::Policy(policy, _) => Some(policy),
            _ => None,
        }
    }

    /// Puts each policy's rules with the same decision next to each other.
    fn order(&self) -> (&Option<(Direction, Item)>, &Option<RuleKey>, RuleId) {
        (&self.decided, &self.rule, self.id)
    }
}

pub fn verdict(decision: Decision) -> Option<Verdict> {
    match decision {
        Decision::Accept => Some(Verdict::Accept),
        Decision::Deny => Some(Verdict::Deny),
        Decision::Pass => Some(Verdict::Pass),
        Decision::Log => None,
    }
}
