//! The bodies of the fuzz targets on a stable compiler: over their seeds, over every input that ever broke something, and
//! over seeds that are cut and damaged in a fixed way. The fuzzer itself is run with tools/fuzz.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cuts and damages of each seed.
const VARIANTS: u64 = 48;

fn run(target: &str, input: &[u8], name: &str) {
    if catch_unwind(AssertUnwindSafe(|| bodies::run(target, input))).is_err() {
        panic!("{target} breaks on {name}: {input:?}");
    }
}

/// The seed, and variants of it: shorter, with bytes changed, with a piece doubled.
fn run_variants(target: &str) {
    let known = bodies::TARGETS.iter().find(|known| known.name == target).expect("a target");
    let seeds = (known.seeds)();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for (number, seed) in seeds.iter().enumerate() {
        run(target, seed, &format!("seed {number}"));
        let mut dice = number as u64 + 1;
        for variant in 0..VARIANTS {
            let mut roll = |sides: usize| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) as usize % sides.max(1)
            };
            let mut input = seed.clone();
            match variant % 3 {
                0 => input.truncate(roll(seed.len())),
                1 if !input.is_empty() => {
                    for _ in 0..=roll(4) {
                        let at = roll(input.len());
                        input[at] = [0, 1, 4, 255, roll(256) as u8][roll(5)];
                    }
                }
                _ => {
                    let (from, to) = (roll(seed.len()), roll(seed.len()));
                    input.extend_from_slice(&seed[from.min(to)..from.max(to)]);
                }
            }
            run(target, &input, &format!("seed {number}, variant {variant}"));
        }
    }
}

fn run_committed(target: &str) {
    for (path, input) in bodies::committed(target) {
        run(target, &input, &path.display().to_string());
    }
}

macro_rules! targets {
    ($($test:ident: $target:literal;)*) => {
        $(
            /// [1.2.2] No bytes break it.
            #[test]
            fn $test() {
                run_committed($target);
                run_variants($target);
            }
        )*

        #[test]
        fn every_target_is_run_here() {
            let known: Vec<&str> = bodies::TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, [$($target),*]);
        }
    };
}

targets! {
    no_bytes_break_frame: "frame";
    no_bytes_break_records: "records";
    no_bytes_break_sections: "sections";
    no_bytes_break_sealed: "sealed";
    no_bytes_break_window: "window";
    no_bytes_break_classic: "classic";
    no_bytes_break_ipvs: "ipvs";
    no_bytes_break_attributes: "attributes";
    no_bytes_break_packet: "packet";
    no_bytes_break_pcap: "pcap";
    no_bytes_break_pcapng: "pcapng";
    no_bytes_break_netlink: "netlink";
    no_bytes_break_filter: "filter";
    no_bytes_break_config: "config";
    no_bytes_break_control: "control";
    no_bytes_break_fifo: "fifo";
    no_bytes_break_engine: "engine";
    no_bytes_break_third: "third";
}
