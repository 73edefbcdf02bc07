//! The chart: each figure that has a limit, as a bar on its limit's; or, of `--scale`, curves.
//!
//! ```text
//!   raw  frames received   ████████████░░░  231 k of 290 k frames/s
//! ```
//!
//! Only what is more when it is better is drawn; processor time and latency stand in the table.

use super::BenchError;
use super::report::{Curve, Report, Row};
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
    if report.curves.is_empty() { draw_bars(report, file) } else { draw_curves(&report.curves, file) }
}

fn draw_bars(report: &Report, file: &Path) -> Result<(), BenchError> {
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

/// Size of a panel, and its margins: left, top, right, bottom.
const PANEL: (i32, i32) = (480, 260);
const MARGINS: (i32, i32, i32, i32) = (64, 40, 104, 32);
/// Colours of the curves of a panel, in turn.
const COLOURS: [RGBColor; 3] = [RGBColor(33, 84, 140), RGBColor(196, 98, 16), RGBColor(70, 130, 80)];
/// Lines across a panel.
const LINES: i32 = 4;

/// Draws curves, those of a panel together; their places are as far from each other as they are many, whatever they count.
fn draw_curves(curves: &[Curve], file: &Path) -> Result<(), BenchError> {
    let mut panels: Vec<&str> = Vec::new();
    for curve in curves {
        if !panels.contains(&curve.panel) {
            panels.push(curve.panel);
        }
    }
    let rows = panels.len().div_ceil(2) as i32;
    let root = SVGBackend::new(file, (2 * PANEL.0 as u32, (rows * PANEL.1) as u32)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<std::io::Error>| BenchError::Chart(error.to_string());
    root.fill(&WHITE).map_err(failed)?;
    for (index, panel) in panels.into_iter().enumerate() {
        let (column, row) = (index as i32 % 2, index as i32 / 2);
        let of_panel: Vec<&Curve> = curves.iter().filter(|curve| curve.panel == panel).collect();
        draw_panel(&root, (column * PANEL.0, row * PANEL.1), panel, &of_panel).map_err(failed)?;
    }
    root.present().map_err(failed)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(
    root: &Area<'_>,
    at: (i32, i32),
    title: &str,
    curves: &[&Curve],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let font = |size: i32| ("sans-serif", size).into_font();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let mut places: Vec<u32> = points().map(|(place, _)| *place).collect();
    places.sort_unstable();
    places.dedup();
    let most = points().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let (left, top) = (at.0 + MARGINS.0, at.1 + MARGINS.1);
    let (right, bottom) = (at.0 + PANEL.0 - MARGINS.2, at.1 + PANEL.1 - MARGINS.3);
    let x = |index: usize| left + (right - left) * index as i32 / (places.len().max(2) as i32 - 1);
    let y = |figure: f64| bottom - (f64::from(bottom - top) * figure / most) as i32;
    root.draw(&Text::new(title.to_owned(), (at.0 + 16, at.1 + 10), font(14)))?;
    for line in 0..=LINES {
        let figure = most * f64::from(line) / f64::from(LINES);
        let across = vec![(left, y(figure)), (right, y(figure))];
        root.draw(&PathElement::new(across, RGBColor(221, 225, 230)))?;
        root.draw(&Text::new(super::report::figure(Some(figure)), (at.0 + 12, y(figure) - 6), font(12)))?;
    }
    for (index, place) in places.iter().enumerate() {
        root.draw(&Text::new(short(*place), (x(index) - 8, bottom + 8), font(12)))?;
    }
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let place = |of: u32| places.iter().position(|place| *place == of).unwrap_or(0);
        let path: Vec<(i32, i32)> = curve.points.iter().map(|(of, figure)| (x(place(*of)), y(*figure))).collect();
        let Some(end) = path.last().copied() else { continue };
        root.draw(&PathElement::new(path.clone(), colour.stroke_width(2)))?;
        for point in path {
            root.draw(&Circle::new(point, 3, colour.filled()))?;
        }
        root.draw(&Text::new(curve.name, (end.0 + 8, end.1 - 6), font(12).color(&colour)))?;
    }
    Ok(())
}

/// A number of things in few letters.
fn short(count: u32) -> String {
    match count {
        1_000_000.. => format!("{} M", count / 1_000_000),
        1_000.. => format!("{} k", count / 1_000),
        _ => count.to_string(),
    }
}
