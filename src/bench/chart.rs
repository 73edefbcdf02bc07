//! The chart: each figure that has a limit, as a bar on its limit's.
//!
//! ```text
//!   raw  frames received   ████████████░░░  231 k of 290 k frames/s
//! ```
//!
//! Only what is more when it is better is drawn; processor time and latency stand in the table.

use super::BenchError;
use super::report::{Report, Row};
use plotters::prelude::*;
use std::path::Path;

/// Width of the picture in pixels.
const WIDTH: u32 = 960;
/// Height of a bar with its space.
const BAR_HEIGHT: u32 = 28;
/// Where bars begin and end.
const BARS: (i32, i32) = (260, 660);
/// Height of the head.
const HEAD: u32 = 48;

/// Writes it.
pub(super) fn draw(report: &Report, file: &Path) -> Result<(), BenchError> {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.unit.ends_with("/s") && row.ratio.is_some()).collect();
    let height = HEAD + BAR_HEIGHT * (rows.len() as u32 + 1);
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<std::io::Error>| BenchError::Chart(error.to_string());
    root.fill(&WHITE).map_err(failed)?;
    let font = |size: i32| ("sans-serif", size).into_font();
    let title = "ssyncp bench: measured (dark) on the limit of this machine (light)".to_owned();
    root.draw(&Text::new(title, (16, 16), font(18))).map_err(failed)?;
    for (index, row) in rows.into_iter().enumerate() {
        let top = (HEAD + BAR_HEIGHT * index as u32) as i32;
        let bottom = top + BAR_HEIGHT as i32 - 8;
        let share = row.ratio.unwrap_or(0.0).clamp(0.0, 1.0);
        let end = BARS.0 + (f64::from(BARS.1 - BARS.0) * share) as i32;
        let name = format!("{}  {}", row.transport.unwrap_or(""), row.what);
        root.draw(&Text::new(name, (16, top + 4), font(14))).map_err(failed)?;
        let limit = Rectangle::new([(BARS.0, top), (BARS.1, bottom)], RGBColor(221, 225, 230).filled());
        root.draw(&limit).map_err(failed)?;
        root.draw(&Rectangle::new([(BARS.0, top), (end, bottom)], RGBColor(33, 84, 140).filled())).map_err(failed)?;
        let words = format!(
            "{} of {} {} ({:.0} %)",
            thousands(row.median),
            thousands(row.limit),
            row.unit,
            row.ratio.unwrap_or(0.0) * 100.0
        );
        root.draw(&Text::new(words, (BARS.1 + 12, top + 4), font(14))).map_err(failed)?;
    }
    root.present().map_err(failed)
}

fn thousands(figure: Option<f64>) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{:.0} k", figure / 1000.0))
}
