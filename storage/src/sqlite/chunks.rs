//! Statements over many rows.
//!
//! Each statement that goes to SQLite costs a change of threads there and back, far more than a row does. So rows go
//! together, and since SQLite has no arrays, a statement has a place for each value of each row. It is prepared for a
//! few numbers of rows, and a list is cut into parts of these sizes.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// Rows that a statement is prepared for. With the largest one, the widest of our rows stays far below SQLite's 32,766
/// values a statement.
const SIZES: [usize; 4] = [256, 64, 8, 1];

/// A statement that is prepared for several numbers of rows.
pub(super) struct Chunked([Arc<str>; SIZES.len()]);

impl Chunked {
    /// A statement of a part before the rows, of a row such as `(?,?)`, and of a part after the rows.
    pub(super) fn new(before: &str, row: &str, after: &str) -> Self {
        let statement = |size| format!("{before} {} {after}", vec![row; size].join(",")).into();
        Self(SIZES.map(statement))
    }

    /// Cuts the list into parts, each with its statement.
    pub(super) fn parts<'a, T>(&'a self, rows: &'a [T]) -> impl Iterator<Item = (SqlStr, &'a [T])> {
        let mut rest = rows;
        std::iter::from_fn(move || {
            let index = SIZES.iter().position(|size| *size <= rest.len())?;
            let (part, after) = rest.split_at(SIZES[index]);
            rest = after;
            // Made of this module's callers' literals only.
            Some((AssertSqlSafe(self.0[index].clone()).into_sql_str(), part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_parts_that_have_a_statement() {
        let chunked = Chunked::new("INSERT INTO t VALUES", "(?)", "");
        let rows: Vec<usize> = (0..406).collect();
        let parts: Vec<_> = chunked.parts(&rows).collect();
        let sizes: Vec<_> = parts.iter().map(|(_, part)| part.len()).collect();
        assert_eq!(sizes, [256, 64, 64, 8, 8, 1, 1, 1, 1, 1, 1]);
        assert_eq!(parts.iter().flat_map(|(_, part)| part.iter().copied()).collect::<Vec<_>>(), rows);
        for (statement, part) in parts {
            assert_eq!(statement.as_str().matches('?').count(), part.len());
        }
        assert_eq!(chunked.parts::<usize>(&[]).count(), 0);
    }
}
