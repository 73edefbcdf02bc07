//! The short form of `cargo run --release --example forgeries`: a sealed pair is told 100,000 forged frames, and believes none.

#[path = "../examples/forgeries/main.rs"]
mod forgeries;

use forgeries::Options;

/// [3.4.2] [3.4.3] [3.4.6] Whoever has seen every frame and does not have the secret changes nothing, and stalls nothing.
#[test]
fn a_sealed_pair_takes_nothing_from_who_has_no_secret() {
    let report = forgeries::run(&Options { frames: 100_000, threads: Some(1), seed: 6, json: false });
    println!("{}", report.words());
    assert!(report.held(), "{report:#?}");
    assert!(report.frames >= 100_000);
    assert!(report.reached_the_cipher() * 10 >= report.frames * 9, "{report:#?}");
    // Each forgery was tried, and is refused by what is meant to refuse it.
    let count = |kind: &str, reason: &str| report.kinds[kind].get(reason).copied().unwrap_or(0);
    for kind in ["bits", "bytes", "longer", "guessed"] {
        assert_eq!(report.kinds[kind].keys().collect::<Vec<_>>(), ["forged"], "{kind}");
    }
    for (kind, reason) in [
        ("cut", "truncated"),
        ("cut", "forged"),
        ("splice", "forged"),
        ("numbers", "forged"),
        ("numbers", "replayed"),
        ("numbers", "duplicate"),
        ("sender", "unsealed"),
        ("sender", "sealed"),
        ("sender", "unestablished"),
        ("sender", "wrong_group"),
        ("sender", "zero_node"),
        ("sender", "zero_incarnation"),
        ("sender", "zero_sequence"),
        ("replayed", "replayed"),
        ("replayed", "duplicate"),
    ] {
        assert!(count(kind, reason) > 0, "{kind}: none is {reason}: {report:#?}");
    }
    assert!(report.honest > 20, "{}", report.honest);
}
