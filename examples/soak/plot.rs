//! The picture of a run: memory, descriptors, delay, and the way back to sync, over the same minutes. Faults are marks at the
//! foot of each panel, a kill is a line through all of it.

use super::verdict::Record;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::io;
use std::path::Path;

/// Width of the picture, and height of a panel, in pixels.
const WIDTH: i32 = 1200;
const PANEL: i32 = 220;
/// Left, top, right and bottom of a panel.
const MARGINS: (i32, i32, i32, i32) = (72, 36, 24, 28);
/// Points that a curve is drawn of.
const POINTS_MAX: usize = 2000;
/// Lines across a panel, and marks below it.
const LINES: i32 = 4;
const TICKS: i32 = 10;

const GREY: RGBColor = RGBColor(221, 225, 230);
const RED: RGBColor = RGBColor(190, 40, 40);
const COLOURS: [RGBColor; 2] = [RGBColor(33, 84, 140), RGBColor(196, 98, 16)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawing = Result<(), DrawingAreaErrorKind<io::Error>>;
type Points = Vec<(f64, f64)>;

/// One panel: its title, its curves, and whether points are joined.
struct Panel {
    title: &'static str,
    curves: Vec<(&'static str, Vec<Points>)>,
    joined: bool,
}

/// Draws it.
///
/// # Errors
/// The operating system's error.
pub fn draw(record: &Record, file: &Path) -> io::Result<()> {
    let panels = panels(record);
    let root = SVGBackend::new(file, (WIDTH as u32, (PANEL * panels.len() as i32) as u32)).into_drawing_area();
    let drawn = root.fill(&WHITE).and_then(|()| {
        let draw = |(row, panel): (usize, &Panel)| panel.draw(&root, row as i32 * PANEL, record);
        panels.iter().enumerate().try_for_each(draw)
    });
    drawn.and_then(|()| root.present()).map_err(|error| io::Error::other(error.to_string()))
}

fn panels(record: &Record) -> Vec<Panel> {
    // Lives are not joined: between them there was no daemon.
    let of_machines = |value: &dyn Fn(&super::gauge::Sample) -> f64| {
        let curve = |(machine, name): (usize, &'static str)| {
            let mut lives: Vec<Points> = Vec::new();
            let mut last = 0;
            for sample in record.samples.iter().filter(|sample| sample.machine == machine) {
                if sample.life != last {
                    lives.push(Points::new());
                    last = sample.life;
                }
                if let Some(life) = lives.last_mut() {
                    life.push((sample.at_s, value(sample)));
                }
            }
            (name, lives)
        };
        ["a", "b"].into_iter().enumerate().map(curve).collect::<Vec<_>>()
    };
    let delays = record.probes.iter().filter_map(|probe| Some((probe.at_s, probe.delay_ms?))).collect();
    let back = record.faults.iter().filter_map(|fault| Some((fault.at_s, fault.in_sync_s?))).collect();
    vec![
        Panel { title: "resident memory, MiB", curves: of_machines(&|it| it.memory_kib as f64 / 1024.0), joined: true },
        Panel { title: "open descriptors", curves: of_machines(&|it| it.descriptors as f64), joined: true },
        Panel { title: "flows in the table", curves: of_machines(&|it| it.entries.unwrap_or(0) as f64), joined: true },
        Panel {
            title: "delay of a change into the backup's kernel, ms",
            curves: vec![("", vec![delays])],
            joined: false,
        },
        Panel { title: "in sync after a fault, s", curves: vec![("", vec![back])], joined: false },
    ]
}

impl Panel {
    fn draw(&self, root: &Area<'_>, at: i32, record: &Record) -> Drawing {
        let font = |size: i32| ("sans-serif", size).into_font();
        let points = || self.curves.iter().flat_map(|curve| curve.1.iter().flatten());
        let most = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
        let end = record.samples.last().map_or(1.0, |sample| sample.at_s).max(1.0);
        let (left, top, right, bottom) = (MARGINS.0, at + MARGINS.1, WIDTH - MARGINS.2, at + PANEL - MARGINS.3);
        let x = |second: f64| left + (f64::from(right - left) * second / end) as i32;
        let y = |value: f64| bottom - (f64::from(bottom - top) * value / most) as i32;
        root.draw(&Text::new(self.title, (16, at + 12), font(14)))?;
        for line in 0..=LINES {
            let value = most * f64::from(line) / f64::from(LINES);
            root.draw(&PathElement::new(vec![(left, y(value)), (right, y(value))], GREY))?;
            root.draw(&Text::new(format!("{value:.1}"), (16, y(value) - 6), font(12)))?;
        }
        for tick in 0..=TICKS {
            let second = end * f64::from(tick) / f64::from(TICKS);
            root.draw(&Text::new(format!("{:.1} min", second / 60.0), (x(second) - 14, bottom + 10), font(11)))?;
        }
        for fault in &record.faults {
            let height = if fault.kind == "kill" { top } else { bottom - 6 };
            let mark = vec![(x(fault.at_s), bottom), (x(fault.at_s), height)];
            root.draw(&PathElement::new(mark, RED.mix(0.4)))?;
        }
        for (index, (name, pieces)) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            for piece in pieces {
                let every = piece.len().div_ceil(POINTS_MAX).max(1);
                let path: Vec<(i32, i32)> = piece.iter().step_by(every).map(|point| (x(point.0), y(point.1))).collect();
                if self.joined {
                    root.draw(&PathElement::new(path, colour.stroke_width(2)))?;
                } else {
                    path.into_iter().try_for_each(|point| root.draw(&Circle::new(point, 2, colour.filled())))?;
                }
            }
            root.draw(&Text::new(*name, (right - 40 + 16 * index as i32, at + 12), font(14).color(&colour)))?;
        }
        Ok(())
    }
}
