//! What was measured: rows, in words and as JSON (`ssyncp.bench/1`, docs/schemas/bench.json).

use super::Options;
use serde::Serialize;
use std::fmt::Write;

/// Name and version of the form of [`Report`].
const SCHEMA: &str = "ssyncp.bench/1";
/// What stands where nothing was measured.
const UNMEASURED: &str = "-";

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    /// Of this program.
    version: &'static str,
    /// Whether it was built with optimisation.
    optimised: bool,
    /// Release of the kernel.
    kernel: Option<String>,
    /// Name of the processor.
    processor: Option<String>,
    /// How many there are for us.
    processors: Option<usize>,
    /// Load average over the minute before.
    load: Option<f64>,
    /// The interface that frames left by; null for a veth pair of our own.
    interface: Option<String>,
    seconds: f64,
    runs: u32,
    flows: u32,
    pub(super) rows: Vec<Row>,
    /// What a chart is drawn of, if not of rows.
    #[serde(skip)]
    pub(super) curves: Vec<Curve>,
    /// Why something is null.
    pub(super) notes: Vec<String>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// Null for what belongs to no transport.
    pub(super) transport: Option<&'static str>,
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) median: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// Runs that gave a figure.
    pub(super) runs: u32,
    /// The same of the machine alone, in the same unit and the same run.
    pub(super) limit: Option<f64>,
    /// Median by limit.
    pub(super) ratio: Option<f64>,
}

impl Row {
    /// Of the figures of each run; none of them is a figure that was not measured.
    pub(super) fn new(
        transport: Option<&'static str>,
        what: impl Into<String>,
        unit: &'static str,
        figures: impl IntoIterator<Item = f64>,
        limit: Option<f64>,
    ) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        let median = median(&figures);
        let ratio = median.zip(limit).and_then(|(median, limit)| (limit > 0.0).then(|| median / limit));
        let (min, max) = (figures.first().copied(), figures.last().copied());
        Row { transport, what: what.into(), unit, median, min, max, runs: figures.len() as u32, limit, ratio }
    }
}

/// A figure that depends on how many of something there are.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    /// What is drawn together, in the words that stand above it.
    pub(super) panel: &'static str,
    pub(super) name: &'static str,
    /// How many, and the figure.
    pub(super) points: Vec<(u32, f64)>,
}

/// The middle one of what is sorted, or the mean of the two in the middle.
pub(super) fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

impl Report {
    /// Nothing was measured yet.
    pub(super) fn new(options: &Options) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let processor = std::fs::read_to_string("/proc/cpuinfo").ok();
        let name = |text: String| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            line.split_once(": ").map(|(_, name)| name.to_owned())
        };
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            kernel: kernel.map(|text| text.trim().to_owned()),
            processor: processor.and_then(name),
            processors: std::thread::available_parallelism().ok().map(usize::from),
            load: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            interface: options.interface.clone(),
            seconds: options.seconds,
            runs: options.runs,
            flows: options.flows,
            rows: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// One line of JSON.
    pub(super) fn in_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// A table.
    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        let known = |word: &Option<String>| word.clone().unwrap_or_else(|| UNMEASURED.to_owned());
        let processors = self.processors.map_or(UNMEASURED.to_owned(), |count| count.to_string());
        let load = self.load.map_or(UNMEASURED.to_owned(), |load| format!("{load:.2}"));
        let _ = writeln!(
            text,
            "ssyncp {}, Linux {}, {processors} × {}, load {load}, {} flows, {} runs of {} s",
            self.version,
            known(&self.kernel),
            known(&self.processor),
            self.flows,
            self.runs,
            self.seconds
        );
        if !self.optimised {
            text.push_str("built without optimisation: these figures say nothing\n");
        }
        let _ = writeln!(
            text,
            "\n{:<9} {:<32} {:>10} {:>10} {:>10} {:>10} {:>7}  unit",
            "transport", "what", "median", "min", "max", "limit", "ratio"
        );
        for row in &self.rows {
            let figures = [row.median, row.min, row.max, row.limit].map(figure);
            let [median, min, max, limit] = &figures;
            let ratio = row.ratio.map_or(UNMEASURED.to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = writeln!(
                text,
                "{:<9} {:<32} {median:>10} {min:>10} {max:>10} {limit:>10} {ratio:>7}  {}",
                row.transport.unwrap_or(UNMEASURED),
                row.what,
                row.unit
            );
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "not measured: {note}");
        }
        text
    }
}

/// A figure in at most ten places: three digits that mean something, with a prefix above ten thousand.
pub(super) fn figure(figure: Option<f64>) -> String {
    match figure {
        None => UNMEASURED.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value >= 1e9 => format!("{:.2} G", value / 1e9),
        Some(value) if value >= 1e6 => format!("{:.2} M", value / 1e6),
        Some(value) if value >= 1e4 => format!("{:.1} k", value / 1e3),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null_and_never_zero() {
        let row = Row::new(Some("raw"), "frames sent", "frames/s", [], None);
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"transport":"raw","what":"frames sent","unit":"frames/s","median":null,"min":null,"max":null,"runs":0,"limit":null,"ratio":null}"#
        );
        // A division by nothing is no figure.
        assert_eq!(Row::new(None, "w", "u", [f64::NAN, 3.0], Some(0.0)).ratio, None);
        assert_eq!(Row::new(None, "w", "u", [f64::NAN, 3.0], Some(0.0)).runs, 1);
    }

    #[test]
    fn a_row_has_the_median_the_ends_and_its_share_of_the_limit() {
        let row = Row::new(None, "apply", "records/s", [4.0, 1.0, 2.0], Some(8.0));
        assert_eq!((row.median, row.min, row.max, row.ratio), (Some(2.0), Some(1.0), Some(4.0), Some(0.25)));
        assert_eq!(Row::new(None, "w", "u", [4.0, 1.0], None).median, Some(2.5));
    }

    #[test]
    fn figures_are_short() {
        let words = [None, Some(0.0), Some(0.25), Some(3.25), Some(250.4), Some(12_340.0), Some(9.871e6), Some(14.6e9)]
            .map(figure);
        assert_eq!(words, ["-", "0", "0.2500", "3.25", "250", "12.3 k", "9.87 M", "14.60 G"]);
    }
}
