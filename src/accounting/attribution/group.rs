//! Which policy of a group decided which workload's packets, as far as the counters prove it. Pure.
//!
//! Calico ≥ 3.28 puts neighbouring policies with the same selector into one chain, which all their workloads share. The kernel then has
//! only two margins: what each workload got out of the group (a row), and what each policy decided (a column). Between two reads every
//! cell is at least
//!
//! ```text
//! max(0, row − all other columns, column − all other rows)
//! ```
//!
//! (the lower Fréchet bound). That much is credited to the policy, and the rest of the row to the group as a whole. With one active
//! workload, or one policy that decided, the bound is the exact number.
//!
//! Example: workloads A and B got 10 and 3 packets accepted, and policies P and Q accepted 9 and 4. At least 9 − 3 = 6 of P's packets were
//! A's, and at least 4 − 3 = 1 of Q's. For B nothing is certain (3 − 9 < 0, 3 − 4 < 0). So A gets 6 for P, 1 for Q and 3 for the group,
//! and B gets 3 for the group. Every sum is right, and no cell is too high.
//!
//! Counters are not read at one instant, so a packet may be in its row already and not yet in its column, or the other way round. A second
//! look shows how much moved in between ([`motion`](super::motion)), and bounds are relaxed by that, usually by nothing. If a packet
//! stood still, the sums of rows and columns differ, though they must agree. Then bounds are relaxed by the difference too, and what may
//! be ahead is kept back until the next read.

/// A row or column: packets since the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Margin {
    pub least: u64,
    /// `None` if nothing limits it.
    pub most: Option<u64>,
}

impl Margin {
    pub fn exact(packets: u64) -> Self {
        Margin { least: packets, most: Some(packets) }
    }

    pub fn plus(self, other: Margin) -> Margin {
        let most = self.most.zip(other.most).map(|(a, b)| a.saturating_add(b));
        Margin { least: self.least.saturating_add(other.least), most }
    }

    /// Returns the margin without packets that are part of it.
    pub fn less(self, packets: u64) -> Margin {
        Margin { least: self.least.saturating_sub(packets), most: self.most.map(|most| most.saturating_sub(packets)) }
    }

    fn known(self) -> Option<i64> {
        (self.most == Some(self.least)).then_some(signed(self.least))
    }
}

/// What one interval adds to a group's margins for one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Margins {
    pub rows: Vec<Margin>,
    pub columns: Vec<Margin>,
    /// Whether other counters show that the group was in step at both reads. This is needed if a margin is not known exactly, because
    /// then the sums cannot show it.
    pub in_step: bool,
    /// Whether other counters show that nothing went through the group.
    pub quiet: bool,
    /// Packets in flight at this read. Rows may be ahead by as many without a sign of it, because columns are ahead as well.
    pub hidden: u64,
    /// How many packets may be held up in the group while nothing seems to move.
    pub held_up: u64,
    /// Whether rows are differences, which a packet in flight makes too high. Otherwise they are counted, and certain.
    pub derived: bool,
}

/// Rows and columns that were not in step at the last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carry {
    /// How far all rows together are ahead of all columns; negative if they are behind.
    ahead: i64,
    /// By how much `ahead` may be wrong; see [`Margins::hidden`].
    hidden: u64,
    /// Per workload: packets of its row that were kept back, because no column may have counted them yet.
    rows: Vec<u64>,
    /// Per policy: packets of its column that no row may have counted yet.
    columns: Vec<u64>,
}

impl Margins {
    fn sums(&self) -> (Option<i64>, Option<i64>) {
        let sum = |margins: &[Margin]| margins.iter().map(|margin| margin.known()).sum();
        (sum(&self.rows), sum(&self.columns))
    }
}

impl Carry {
    /// Returns how far rows are ahead of columns after an interval, or `None` if that is unknown.
    fn ahead_after(&self, margins: &Margins) -> Option<i64> {
        let (rows, columns) = margins.sums();
        match rows.zip(columns) {
            // Nothing moved for a whole interval, so nothing is in flight either.
            Some((0, 0)) if margins.quiet => Some(0),
            Some((rows, columns)) => Some(self.ahead + rows - columns),
            None => margins.in_step.then_some(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(|packets| *packets == 0)
    }

    /// Takes back packets that a row had too many, as far as they were kept back. Returns how many.
    pub fn withdraw(&mut self, row: usize, packets: u64) -> u64 {
        let Some(kept) = self.rows.get_mut(row) else { return 0 };
        let withdrawn = packets.min(*kept);
        *kept -= withdrawn;
        self.ahead -= signed(withdrawn);
        withdrawn
    }
}

impl Credits {
    /// Credits what was kept back to the group, because the next interval cannot show more.
    pub fn release(&mut self, carry: &mut Carry) {
        for (group, kept) in self.group.iter_mut().zip(&mut carry.rows) {
            *group += std::mem::take(kept);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credits {
    /// Per workload and policy: what is certain.
    pub cells: Vec<Vec<u64>>,
    /// Per workload: what is certain for the group, but not for one of its policies.
    pub group: Vec<u64>,
}

/// Credits one interval. `carry` must be of the same workloads and policies in the same order. A new one is empty.
pub fn credit(margins: &Margins, carry: &mut Carry) -> Credits {
    carry.rows.resize(margins.rows.len(), 0);
    carry.columns.resize(margins.columns.len(), 0);
    let (rows, columns) = margins.sums();
    let ahead = carry.ahead_after(margins);
    let mut cells = match ahead {
        Some(ahead) => Bounds::new(margins, carry, ahead).cells(),
        None => nothing(margins),
    };
    for (cells, (row, kept)) in cells.iter_mut().zip(margins.rows.iter().zip(&carry.rows)) {
        // The cells hold more than the row has, so the columns are another interval's.
        if row.most.is_some_and(|most| cells.iter().sum::<u64>() > most + kept) {
            cells.fill(0);
        }
    }
    if margins.derived && margins.quiet && carry.ahead > 0 && rows.zip(columns) == Some((0, 0)) {
        // Nothing came that confirms these packets.
        carry.rows.fill(0);
    }
    let unproven = if margins.in_step { 0 } else { signed(margins.held_up) };
    let group = settle(margins, &cells, ahead.unwrap_or(unproven), carry);
    carry.ahead = ahead.unwrap_or(0);
    carry.hidden = margins.hidden;
    Credits { cells, group }
}

/// Credits an interval in which only one policy can have decided so: there is nothing to divide. What may be held up is kept back.
pub fn credit_undivided(margins: &Margins, carry: &mut Carry) -> Credits {
    let held_up = if margins.derived { margins.held_up } else { 0 };
    let before = std::mem::take(carry);
    (carry.ahead, carry.hidden) = (before.ahead_after(margins).unwrap_or(0), margins.hidden);
    let kept = before.rows.into_iter().chain(std::iter::repeat(0));
    let all: Vec<u64> = margins.rows.iter().zip(kept).map(|(row, kept)| kept + row.least).collect();
    // A packet that was kept back may have ended otherwise, while another one was in flight.
    carry.rows = all.iter().map(|all| (*all).min(held_up)).collect();
    let group = all.iter().zip(&carry.rows).map(|(all, keep)| all - keep).collect();
    Credits { cells: nothing(margins), group }
}

fn nothing(margins: &Margins) -> Vec<Vec<u64>> {
    vec![vec![0; margins.columns.len()]; margins.rows.len()]
}

/// Returns the smaller of two limits; `None` is no limit.
pub fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Converts packets for calculations, capped so that sums do not overflow.
pub fn signed(packets: u64) -> i64 {
    const MOST: i64 = i64::MAX / 1024;
    i64::try_from(packets).map_or(MOST, |packets| packets.min(MOST))
}

/// Rows and columns as they would be if all counters had been read at one instant.
struct Bounds {
    rows: Side,
    columns: Side,
    slack: i64,
}

struct Side {
    /// The least and the most of each; `None` if nothing limits it.
    margins: Vec<(i64, Option<i64>)>,
    /// The sum of all `most`, without what was kept.
    all: Option<i64>,
    kept: Vec<i64>,
    all_kept: i64,
    /// How far this side was ahead of the other at the last read. This limits what was kept then and counts now.
    ahead_before: i64,
}

impl Bounds {
    fn new(margins: &Margins, carry: &Carry, ahead: i64) -> Self {
        let hidden = signed(carry.hidden.saturating_add(margins.hidden));
        // Counted rows go to the group immediately, so nothing is kept that could be distinguished later. Bounds are relaxed instead.
        let (before, now, slack) = match margins.derived {
            true => (carry.ahead, ahead, hidden),
            false => (0, 0, hidden + carry.ahead.abs() + ahead.abs()),
        };
        let rows = Side::new(&margins.rows, &carry.rows, before, now);
        let columns = Side::new(&margins.columns, &carry.columns, -before, -now);
        Bounds { rows, columns, slack }
    }

    /// Returns the lower Fréchet bound of every cell.
    fn cells(&self) -> Vec<Vec<u64>> {
        let cell = |row: usize, column: usize| {
            let ((row_least, row_most), (column_least, column_most)) = (self.rows.margins[row], self.columns.margins[column]);
            let less = |least: i64, others: Option<i64>| Some(least.saturating_sub(others?).saturating_sub(self.slack));
            let bound = less(column_least, self.rows.others(row)).max(less(row_least, self.columns.others(column))).unwrap_or(0);
            u64::try_from(smaller(row_most, column_most).map_or(bound, |most| bound.min(most))).unwrap_or(0)
        };
        (0..self.rows.margins.len()).map(|row| (0..self.columns.margins.len()).map(|column| cell(row, column)).collect()).collect()
    }
}

impl Side {
    fn new(margins: &[Margin], kept: &[u64], ahead_before: i64, ahead_now: i64) -> Self {
        let kept: Vec<i64> = kept.iter().map(|&kept| signed(kept)).collect();
        let (all_kept, ahead_before, ahead_now) = (kept.iter().sum::<i64>(), ahead_before.max(0), ahead_now.max(0));
        let most = |margin: &Margin| margin.most.map(signed);
        let stretch = |(margin, &kept): (&Margin, &i64)| {
            // What was ahead at the last read, and can only have been here, counts now. What may be ahead now does not count yet.
            let surely_before = (ahead_before - (all_kept - kept)).clamp(0, kept);
            ((signed(margin.least) + surely_before - ahead_now).max(0), most(margin).map(|most| most + kept))
        };
        let all = margins.iter().map(most).try_fold(0, |all: i64, most| Some(all.saturating_add(most?)));
        Side { margins: margins.iter().zip(&kept).map(stretch).collect(), all, kept, all_kept, ahead_before }
    }

    /// Returns the most that all margins except this one can be together; `None` if one of them, or this one, has no limit.
    fn others(&self, index: usize) -> Option<i64> {
        let most = self.margins[index].1? - self.kept[index];
        Some(self.all? - most + (self.all_kept - self.kept[index]).min(self.ahead_before))
    }
}

/// Returns the rest of each row for the group. Of derived rows, what may be ahead of its column is kept in `carry`.
fn settle(margins: &Margins, cells: &[Vec<u64>], ahead: i64, carry: &mut Carry) -> Vec<u64> {
    let hidden = signed(margins.hidden);
    let keep = |ahead: i64| if margins.derived { u64::try_from(ahead + hidden).unwrap_or(0) } else { 0 };
    let (rows_ahead, columns_ahead) = (keep(ahead), keep(-ahead));
    let mut group = Vec::with_capacity(cells.len());
    for ((row, cells), kept) in margins.rows.iter().zip(cells).zip(&mut carry.rows) {
        let rest = (row.least + *kept).saturating_sub(cells.iter().sum());
        *kept = rest.min(rows_ahead);
        group.push(rest - *kept);
    }
    for (column, kept) in margins.columns.iter().zip(&mut carry.columns) {
        *kept = (column.least + *kept).min(columns_ahead);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margins(rows: &[u64], columns: &[u64]) -> Margins {
        let exact = |packets: &[u64]| packets.iter().map(|&p| Margin::exact(p)).collect();
        Margins {
            rows: exact(rows),
            columns: exact(columns),
            in_step: false,
            quiet: rows.iter().all(|&row| row == 0),
            hidden: 0,
            held_up: 1,
            derived: true,
        }
    }

    fn next(margins: &Margins, carry: &mut Carry) -> (Vec<Vec<u64>>, Vec<u64>) {
        let Credits { cells, group } = credit(margins, carry);
        (cells, group)
    }

    fn once(rows: &[u64], columns: &[u64]) -> (Vec<Vec<u64>>, Vec<u64>) {
        next(&margins(rows, columns), &mut Carry::default())
    }

    #[test]
    fn one_interval() {
        assert_eq!(once(&[10, 3], &[9, 4]), (vec![vec![6, 1], vec![0, 0]], vec![3, 3]), "the example");
        assert_eq!(once(&[10, 0], &[9, 1]), (vec![vec![9, 1], vec![0, 0]], vec![0, 0]), "exact: one active workload");
        assert_eq!(once(&[10, 3], &[0, 13]), (vec![vec![0, 10], vec![0, 3]], vec![0, 0]), "exact: one policy that decided");
        // A's packet met Q, and Q's counter was read before. B's packet met P. A's packet must not be credited to P.
        assert_eq!(once(&[1, 1], &[1, 0]), (vec![vec![0, 0], vec![0, 0]], vec![0, 0]));
    }

    #[test]
    fn what_is_ahead_waits_for_the_other_side() {
        let mut carry = Carry::default();
        // One packet of A is in its row but not yet in P's column.
        assert_eq!(next(&margins(&[5, 0], &[4, 0]), &mut carry), (vec![vec![4, 0], vec![0, 0]], vec![0, 0]));
        assert_eq!(next(&margins(&[0, 0], &[1, 0]), &mut carry), (vec![vec![1, 0], vec![0, 0]], vec![0, 0]));
        assert_eq!(carry.ahead, 0);
    }

    #[test]
    fn what_was_counted_goes_to_the_group_at_once_and_to_a_policy_only_in_step() {
        let counted = |rows: &[u64], columns: &[u64]| Margins { derived: false, ..margins(rows, columns) };
        let mut carry = Carry::default();
        assert_eq!(next(&counted(&[5, 0], &[4, 0]), &mut carry), (vec![vec![4, 0], vec![0, 0]], vec![1, 0]));
        // The late packet of P must not be taken for B's packet, which met Q.
        assert_eq!(next(&counted(&[0, 1], &[1, 1]), &mut carry), (vec![vec![0, 0], vec![0, 0]], vec![0, 1]));
    }

    #[test]
    fn a_row_is_never_divided_into_more_than_it_has() {
        // One of the columns is late from the interval before, and a third column, which is unknown, hides it.
        let columns = vec![Margin::exact(1), Margin::exact(1), Margin::default()];
        let margins = Margins { rows: vec![Margin::exact(1)], columns, in_step: true, ..Margins::default() };
        assert_eq!(next(&margins, &mut Carry::default()), (vec![vec![0, 0, 0]], vec![1]));
    }

    #[test]
    fn an_interval_without_movement_ends_all_doubt() {
        let mut carry = Carry::default();
        credit(&margins(&[1, 1], &[1, 0]), &mut carry);
        // One of the two was wrong, and it is unknown which.
        assert_eq!(next(&margins(&[0, 0], &[0, 0]), &mut carry), (vec![vec![0, 0], vec![0, 0]], vec![0, 0]));
        assert_eq!(credit(&margins(&[7, 0], &[3, 4]), &mut carry).cells, vec![vec![3, 4], vec![0, 0]]);
    }

    #[test]
    fn what_a_row_had_too_many_is_taken_back() {
        let mut carry = Carry::default();
        // A packet of A was in flight while its counters were read. It looked denied, but was not.
        assert_eq!(next(&margins(&[1, 0], &[0, 0]), &mut carry), (vec![vec![0, 0], vec![0, 0]], vec![0, 0]));
        assert_eq!(carry.withdraw(0, 3), 1);
        assert_eq!(next(&margins(&[0, 0], &[0, 0]), &mut carry), (vec![vec![0, 0], vec![0, 0]], vec![0, 0]));
        assert_eq!(carry.ahead, 0);
    }

    #[test]
    fn margins_that_are_not_known_prove_little() {
        let unknown_row = Margins { rows: vec![Margin { least: 2, most: None }, Margin::exact(3)], ..margins(&[], &[3, 2]) };
        assert_eq!(next(&unknown_row, &mut Carry::default()), (vec![vec![0, 0], vec![0, 0]], vec![1, 2]), "one may be held up");
        let in_step = Margins { in_step: true, ..unknown_row };
        assert_eq!(credit(&in_step, &mut Carry::default()).cells, vec![vec![0, 0], vec![1, 0]]);
    }
}
