//! Arithmetic that a few wild samples cannot move: medians, and the slope of a line through noise.
//!
//! ```text
//!   samples ──▶ at most 200 bins, the median of each ──▶ Theil–Sen: the median of the slopes of all pairs of bins
//! ```
//!
//! A step (a table that was never so full before) moves few of the pairs and so hardly the slope; what grows all the time
//! moves every one of them. (Theil 1950, Sen 1968: up to 29 % of the points may be anything.)

/// Most bins: 20,000 pairs.
const BINS_MAX: usize = 200;

/// The middle; the lower one of an even number; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// The slope of `points` (when, how much) in units of how much for each unit of when; `None` of fewer than two moments.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let binned = bins(points);
    let pairs =
        binned.iter().enumerate().flat_map(|(index, one)| binned[index + 1..].iter().map(move |other| (one, other)));
    median(pairs.filter(|(one, other)| other.0 > one.0).map(|(one, other)| (other.1 - one.1) / (other.0 - one.0)))
}

/// Medians of the first and of the last third of `points` by time; `None` if a third has none.
pub fn thirds(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (first, last) = (points.first()?.0, points.last()?.0);
    let third = (last - first) / 3.0;
    let begin = median(points.iter().filter(|point| point.0 <= first + third).map(|point| point.1))?;
    let end = median(points.iter().filter(|point| point.0 >= last - third).map(|point| point.1))?;
    Some((begin, end))
}

/// Runs of as many points each, in the order of time, and the median of each run.
fn bins(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let length = points.len().div_ceil(BINS_MAX).max(1);
    let bin =
        |run: &[(f64, f64)]| Some((median(run.iter().map(|point| point.0))?, median(run.iter().map(|point| point.1))?));
    points.chunks(length).filter_map(bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_lower_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.0));
    }

    #[test]
    fn a_line_has_its_slope_and_wild_points_do_not_move_it() {
        let mut line: Vec<(f64, f64)> = (0..100).map(|at| (f64::from(at), 7.0 + 2.0 * f64::from(at))).collect();
        assert_eq!(slope(&line), Some(2.0));
        for wild in [3, 17, 50, 51, 90, 99] {
            line[wild].1 = 1e9;
        }
        assert_eq!(slope(&line), Some(2.0));
    }

    #[test]
    fn a_single_step_is_no_slope() {
        let step: Vec<(f64, f64)> = (0..90).map(|at| (f64::from(at), if at < 30 { 10.0 } else { 12.0 })).collect();
        assert_eq!(slope(&step), Some(0.0));
    }

    #[test]
    fn ten_thousand_points_have_the_slope_of_their_bins() {
        let line: Vec<(f64, f64)> = (0..10_000).map(|at| (f64::from(at), 0.5 * f64::from(at))).collect();
        assert_eq!(slope(&line), Some(0.5));
        assert_eq!(bins(&line).len(), 200);
    }

    #[test]
    fn thirds_are_by_time_and_not_by_number() {
        // Of nine seconds the first three have one sample each, the last three have many.
        let points = [(0.0, 1.0), (1.0, 2.0), (3.0, 3.0), (6.0, 8.0), (6.5, 8.0), (7.0, 9.0), (8.0, 9.0), (9.0, 9.0)];
        assert_eq!(thirds(&points), Some((2.0, 9.0)));
        assert_eq!(thirds(&[]), None);
    }

    #[test]
    fn one_moment_has_no_slope() {
        assert_eq!(slope(&[(1.0, 5.0)]), None);
        assert_eq!(slope(&[(1.0, 5.0), (1.0, 6.0)]), None);
    }
}
