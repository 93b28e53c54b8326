//! Rules in Calico's chains that are not Felix's, or not written as Felix does: what they can do to packets that match. Pure.

use super::Marks;
use crate::ruleset::{RuleId, Ruleset, Verdict};

/// A rule that is not understood and can change which rules a packet meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    pub rule: RuleId,
    pub way: Way,
    /// Whether packets may carry other verdict marks after it.
    pub changes_marks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    On,
    Back,
    /// Perhaps nowhere: the packet may be accepted, dropped or queued.
    Away,
}

impl Foreign {
    /// Returns `None` for a rule that changes nothing: one that only counts, logs, or sets other marks.
    pub(super) fn new(ruleset: &Ruleset, rule: RuleId, marks: Marks) -> Option<Self> {
        let (way, changes_marks) = match ruleset.rule(rule).verdict {
            Verdict::None | Verdict::Log | Verdict::Nflog(_) => return None,
            Verdict::SetMark { mask, .. } => (Way::On, marks.verdicts().is_none_or(|bits| mask & bits != 0)),
            Verdict::Return => (Way::Back, false),
            Verdict::Accept | Verdict::Drop | Verdict::Reject => (Way::Away, false),
            // What a foreign chain or target does is unknown.
            Verdict::Jump(_) | Verdict::Goto(_) | Verdict::Other | Verdict::Unreadable => (Way::Away, true),
        };
        (way > Way::On || changes_marks).then_some(Foreign { rule, way, changes_marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Backend, Builder, Family, RuleParts};

    fn foreign(verdict: Verdict) -> Option<(Way, bool)> {
        let mut builder = Builder::new(Family::V4, Backend::Legacy, "filter");
        let chain = builder.chain("cali-tw-cali1");
        builder.push(chain, &RuleParts::default(), verdict);
        let marks = Marks { accept: 0x10000, pass: 0x20000, drop: None };
        let found = Foreign::new(&builder.finish().ruleset, RuleId(0), marks)?;
        Some((found.way, found.changes_marks))
    }

    #[test]
    fn what_a_rule_can_do_follows_from_its_target() {
        for (verdict, expected) in [
            (Verdict::Log, None),
            (Verdict::SetMark { value: 1, mask: 1 }, None),
            (Verdict::SetMark { value: 0, mask: u32::MAX }, Some((Way::On, true))),
            (Verdict::SetMark { value: 0x10000, mask: 0x10000 }, Some((Way::On, true))),
            (Verdict::Return, Some((Way::Back, false))),
            (Verdict::Drop, Some((Way::Away, false))),
            (Verdict::Accept, Some((Way::Away, false))),
            (Verdict::Other, Some((Way::Away, true))),
        ] {
            assert_eq!(foreign(verdict), expected, "{verdict:?}");
        }
    }
}
