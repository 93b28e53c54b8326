//! What is certain of every cell of a grid, from its margins alone. Pure.
//!
//! Rows are what each workload's program decided, columns what each policy decided on the whole node. Not every workload has every
//! policy. A cell that does not exist takes nothing from others, so more is certain than by the bounds of a full grid
//! ([`group`](super::super::group)). A cell is at least
//!
//! ```text
//! max(0, column − the most that the other rows of this column can hold, row − the most that the other columns of this row can hold)
//! ```
//!
//! and at most the smaller of its row and its column.

use super::super::group::{Margin, smaller};

/// Returns the bounds of the cells of each row, in the order of `cells`, which lists the columns of the row.
pub fn bounds(rows: &[Margin], columns: &[Margin], cells: &[Vec<usize>]) -> Vec<Vec<Margin>> {
    let mut of_columns = vec![Sum::default(); columns.len()];
    let mut of_rows = vec![Sum::default(); rows.len()];
    for (row, cells) in cells.iter().enumerate() {
        for &column in cells {
            let most = smaller(rows[row].most, columns[column].most);
            of_columns[column].add(most);
            of_rows[row].add(most);
        }
    }
    let bound = |row: usize, column: usize| {
        let most = smaller(rows[row].most, columns[column].most);
        let by_column = of_columns[column].without(most).map_or(0, |others| columns[column].least.saturating_sub(others));
        let by_row = of_rows[row].without(most).map_or(0, |others| rows[row].least.saturating_sub(others));
        Margin { least: by_column.max(by_row).min(most.unwrap_or(u64::MAX)), most }
    };
    cells.iter().enumerate().map(|(row, cells)| cells.iter().map(|&column| bound(row, column)).collect()).collect()
}

/// A sum of terms that may have no limit.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    limited: u64,
    unlimited: usize,
}

impl Sum {
    fn add(&mut self, term: Option<u64>) {
        match term {
            Some(term) => self.limited = self.limited.saturating_add(term),
            None => self.unlimited += 1,
        }
    }

    fn without(self, term: Option<u64>) -> Option<u64> {
        match (term, self.unlimited) {
            // A saturated sum says nothing any more.
            (Some(_), 0) if self.limited == u64::MAX => None,
            (Some(term), 0) => Some(self.limited - term),
            (None, 1) => Some(self.limited),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(packets: &[u64]) -> Vec<Margin> {
        packets.iter().map(|&packets| Margin::exact(packets)).collect()
    }

    fn least(rows: &[Margin], columns: &[Margin], cells: &[Vec<usize>]) -> Vec<Vec<u64>> {
        bounds(rows, columns, cells).iter().map(|row| row.iter().map(|cell| cell.least).collect()).collect()
    }

    #[test]
    fn what_is_certain_of_a_grid() {
        let full = [vec![0, 1], vec![0, 1]];
        assert_eq!(least(&exact(&[10, 3]), &exact(&[9, 4]), &full), [[6, 1], [0, 0]], "Fréchet's bounds");
        assert_eq!(least(&exact(&[10, 0]), &exact(&[9, 1]), &full), [[9, 1], [0, 0]]);
        // The first column is in the first row alone.
        let cells = [vec![0, 1], vec![1]];
        assert_eq!(least(&exact(&[10, 3]), &exact(&[6, 7]), &cells), [vec![6, 4], vec![3]]);
        let limited = |most| Margin { least: 0, most: Some(most) };
        let without_rows = [vec![Margin::exact(6), limited(7)], vec![limited(7)]];
        assert_eq!(bounds(&[Margin::default(); 2], &exact(&[6, 7]), &cells), without_rows, "the only holder needs no row");
        // A column that counts elsewhere too only sets a limit.
        assert_eq!(least(&exact(&[10]), &[limited(2), Margin::default()], &[vec![0, 1]]), [[0, 8]]);
    }

    /// Fills small grids in all ways. The bounds hold in each, and are reached.
    #[test]
    fn bounds_hold_and_are_tight_enough() {
        let cells = [vec![0, 1], vec![1, 2], vec![0, 2]];
        let mut checked = 0;
        for filling in 0..4u64.pow(6) {
            let values: Vec<u64> = (0..6).map(|place| filling / 4u64.pow(place) % 4).collect();
            let (mut rows, mut columns) = ([0; 3], [0; 3]);
            for (row, cells) in cells.iter().enumerate() {
                for (place, &column) in cells.iter().enumerate() {
                    rows[row] += values[row * 2 + place];
                    columns[column] += values[row * 2 + place];
                }
            }
            for (row, bounds) in bounds(&exact(&rows), &exact(&columns), &cells).iter().enumerate() {
                for (place, bound) in bounds.iter().enumerate() {
                    let value = values[row * 2 + place];
                    assert!(bound.least <= value && value <= bound.most.unwrap(), "{values:?}");
                    checked += usize::from(bound.least == value);
                }
            }
        }
        assert!(checked > 4usize.pow(6), "{checked}");
    }
}
