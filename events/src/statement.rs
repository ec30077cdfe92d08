//! Statements that are about many rows at once.

/// Rows of one statement: few sizes, so that each text stays prepared, and no more parameters than SQLite takes.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// `rows` in portions of few sizes, in order.
pub(crate) fn portions<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (portion, rest) = rows.split_at(size);
        rows = rest;
        Some(portion)
    })
}

/// `rows` parameters, the first of them `$first`: `$2, $3, $4`.
pub(crate) fn parameters(first: usize, rows: usize) -> String {
    let parameters: Vec<_> = (first..first + rows).map(|number| format!("${number}")).collect();
    parameters.join(", ")
}

/// `rows` rows of `columns` parameters each, the first of them `$first`, with `more` at the end of each:
/// `($2, $3, $1), ($4, $5, $1)` has `, $1` there.
pub(crate) fn values(first: usize, columns: usize, rows: usize, more: &str) -> String {
    let row = |row: usize| format!("({}{more})", parameters(first + row * columns, columns));
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_portion_and_sizes_are_few() {
        for rows in [0, 1, 3, 4, 37, 256, 1000] {
            let all: Vec<usize> = (0..rows).collect();
            let portions: Vec<_> = portions(&all).collect();
            assert_eq!(portions.concat(), all);
            assert!(portions.iter().all(|portion| SIZES.contains(&portion.len())), "{portions:?}");
        }
        assert_eq!(portions(&[0; 300]).map(<[_]>::len).collect::<Vec<_>>(), [256, 16, 16, 4, 4, 4]);
    }

    #[test]
    fn parameters_are_numbered_on() {
        assert_eq!(parameters(2, 3), "$2, $3, $4");
        assert_eq!(values(2, 2, 2, ", $1"), "($2, $3, $1), ($4, $5, $1)");
    }
}
