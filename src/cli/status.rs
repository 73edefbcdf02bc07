//! `ssyncp status`: the state of this node for a person, or for a program.

use super::output::{colour, complain, print, unanswered};
use super::{EXIT_NO, EXIT_UNREACHABLE, Reach};
use crate::daemon::client;
use crate::daemon::settings::Profile;
use crate::daemon::status::{GroupStatus, KernelVerified, NodeStatus, PeerRow, ProgressRow, TrackRow};
use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Time between two pictures of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Events that are shown for a person; `--json` has all.
const EVENTS_SHOWN: usize = 5;

/// What `ssyncp status` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp status\n  ssyncp status --json | jq '.groups[0].sync'\n\n\
    Exit status: 0 if every group is master or in sync, 1 if not, 3 if the daemon does not answer.")]
pub(super) struct Options {
    /// Print the answer as JSON.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Show it anew each second until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    loop {
        let bytes = match client::fetch(&options.reach.socket, "/v1/status") {
            Ok(bytes) => bytes,
            Err(error) => return unanswered(&error),
        };
        let status: NodeStatus = match serde_json::from_slice(&bytes) {
            Ok(status) => status,
            Err(error) => {
                complain(&format!("the answer cannot be read: {error}"));
                return ExitCode::from(EXIT_UNREACHABLE);
            }
        };
        let mut text = String::new();
        if options.json {
            text += &String::from_utf8_lossy(&bytes);
        } else {
            if options.watch && std::io::stdout().is_terminal() {
                // Home, and clear to the end of the screen.
                text += "\x1b[H\x1b[2J";
            }
            text += &words(&status, colour(&std::io::stdout()));
        }
        let printed = print(&text);
        if !options.watch || printed != ExitCode::SUCCESS {
            let ready = status.groups.iter().all(|group| group.not_ready().is_none());
            return if ready { printed } else { ExitCode::from(EXIT_NO) };
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The picture for a person.
fn words(status: &NodeStatus, colour: bool) -> String {
    let mut text = String::new();
    let node = &status.node;
    // Writing into a string cannot fail, here and below.
    let _ = writeln!(text, "node {} ({}), ssyncp {}", node.id, node.name, node.version);
    if let Some(problem) = status.swap.as_ref().and_then(|swap| swap.problem.as_ref()) {
        let _ = writeln!(text, "keys may be written to swap: {problem}");
    }
    if let Some(reload) = &status.reload {
        let _ = writeln!(text, "reload {}, {:.1} s ago: {}", reload.result, reload.age_s, reload.text);
    }
    if status.huge_pages.as_deref() == Some("never") {
        text += "huge pages are switched off (transparent_hugepage: never): a large table is slower\n";
    }
    let _ = writeln!(text, "sandbox {}", status.sandbox.words());
    for group in &status.groups {
        let _ = write_group(&mut text, group, colour);
    }
    text
}

fn write_group(text: &mut String, group: &GroupStatus, colour: bool) -> std::fmt::Result {
    let paint = |ready: bool, word: &str| match (colour, ready) {
        (true, true) => format!("\x1b[32m{word}\x1b[0m"),
        (true, false) => format!("\x1b[31m{word}\x1b[0m"),
        (false, _) => word.to_owned(),
    };
    let not_ready = group.not_ready();
    let verdict = match &not_ready {
        None => paint(true, "ready"),
        Some(reason) => paint(false, &format!("not ready: {reason}")),
    };
    writeln!(text, "\ngroup {}: {}, {}", group.sync_id, group.role, verdict)?;
    let master = group.master.map_or("none known".to_owned(), |node| format!("node {node}"));
    match group.profile {
        Profile::Ssyncp1 => {
            let configured = match group.configured_priority {
                Some(configured) if configured != group.priority => format!(" ({configured} configured)"),
                _ => String::new(),
            };
            let (term, priority) = (group.term, group.priority);
            writeln!(text, "  master      {master}, term {term}, own priority {priority}{configured}")?;
        }
        Profile::Classic => writeln!(text, "  profile     classic: roles by hand, nothing is proven")?,
    }
    let digest = group.digest.as_deref().unwrap_or("none yet");
    let age = group.digest_age_s.map_or(String::new(), |age| format!(", proven {age:.1} s ago"));
    writeln!(text, "  sync        {}, digest {digest}{age}", group.sync)?;
    if let Some(seal) = &group.seal {
        let proven = group.peers.iter().filter(|peer| peer.established).count();
        writeln!(text, "  seal        {}", seal.words(proven))?;
    }
    if !group.draining.is_empty() {
        writeln!(text, "  draining    {}", group.draining.join(", "))?;
    }
    if let Some(heir) = group.heir {
        writeln!(text, "  switch      the role goes to node {heir}")?;
    }
    if group.asks {
        writeln!(text, "  switch      asks for the role")?;
    }
    if let Some(progress) = &group.progress {
        let ProgressRow { percent, buckets_left, records_per_s, eta_s } = progress;
        let eta = eta_s.map_or("end not known yet".to_owned(), |eta| format!("{eta:.1} s left"));
        writeln!(text, "  progress    {percent} %, {buckets_left} buckets left, {records_per_s} records/s, {eta}")?;
    }
    if group.buckets_different > 0 {
        writeln!(text, "  different   {} of 4096 buckets", group.buckets_different)?;
    }
    if group.buckets_unproven > 0 && group.profile == Profile::Ssyncp1 {
        writeln!(text, "  unproven    {} of 4096 buckets", group.buckets_unproven)?;
    }
    writeln!(text, "  table       {} of {} flows", group.entries, group.capacity)?;
    if group.annex_used > 0 {
        writeln!(text, "  annex       {} of {} blocks", group.annex_used, group.annex_blocks)?;
    }
    if let Some(kernel) = &group.kernel {
        let peer = kernel.peer_capacity.map_or(String::new(), |capacity| format!(", the peer's can hold {capacity}"));
        writeln!(text, "  kernel      {} of {} entries{peer}", kernel.entries, kernel.capacity)?;
    }
    if let Some(verified) = &group.kernel_verified {
        let KernelVerified { entries, differing, missing, extra, age_s } = verified;
        let wrong = match differing + missing + extra {
            0 => "as written".to_owned(),
            _ => paint(false, &format!("{differing} other, {missing} missing, {extra} stale")),
        };
        writeln!(text, "  verified    {entries} entries {age_s:.1} s ago: {wrong}")?;
    }
    writeln!(text, "  waiting     {} to be sent, {} to be written", group.pending, group.unapplied)?;
    if let (Some(records), Some(age)) = (group.rpo_records, group.rpo_s) {
        let proven = group.unacknowledged.is_some();
        let what =
            if proven { "records that no proven peer holds, the oldest" } else { "records: no peer is proven, for" };
        let old = if proven { " old" } else { "" };
        writeln!(text, "  at risk     {records} {what} {age:.3} s{old}")?;
    }
    if let (Some(records), Some(age)) = (group.unacknowledged_records, group.unacknowledged_age_s) {
        writeln!(text, "  behind      {records} records that not every proven peer holds, the oldest {age:.3} s old")?;
    }
    if let Some(rates) = &group.rates {
        let (read, written) = (rates.records_received_per_s, rates.records_sent_per_s);
        let (taken, left) = (rates.frames_received_per_s, rates.frames_sent_per_s);
        writeln!(text, "  per second  {written:.0} records in {left:.0} frames out, {read:.0} in {taken:.0} in")?;
    }
    if !group.drops.is_empty() {
        let drops: Vec<String> = group.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        writeln!(text, "  refused     {}", drops.join(", "))?;
    }
    writeln!(text, "  link        {}", if group.link_up { "up" } else { "down" })?;
    for link in &group.links {
        writeln!(
            text,
            "  link        {}: {}, {}, MTU {}, {} frames in, {} out, {} not sent",
            link.name,
            link.condition,
            link.transport,
            link.mtu,
            link.frames_received,
            link.frames_sent,
            link.send_errors
        )?;
        if let Some(reason) = &link.instead_of {
            writeln!(text, "  link        {} runs on {}, because of {reason}", link.name, link.transport)?;
        }
    }
    for track in &group.tracks {
        let state = match track.up {
            None => "not known yet".to_owned(),
            Some(true) => "up".to_owned(),
            Some(false) => "down".to_owned(),
        };
        let TrackRow { name, kind, age_s, weight, output, .. } = track;
        let output = if output.is_empty() { String::new() } else { format!(": {output}") };
        writeln!(text, "  track       {name} ({kind}, weight {weight}): {state} for {age_s:.1} s{output}")?;
    }
    let here = |held: Option<bool>| match held {
        None => "unknown",
        Some(true) => "held",
        Some(false) => "not held",
    };
    for address in &group.addresses {
        writeln!(text, "  address     {}: {}", address.address, here(address.held))?;
    }
    for route in &group.routes {
        writeln!(text, "  route       {}: {}", route.route, here(route.held))?;
    }
    for peer in &group.peers {
        let state = match (peer.established, peer.cold) {
            (false, _) => "not proven in both directions",
            (true, true) => "cold",
            (true, false) => "warm",
        };
        let state = if peer.draining { format!("{state}, draining") } else { state.to_owned() };
        let seal = peer.seal.words();
        let state = if seal.is_empty() { state } else { format!("{state}, {seal}") };
        writeln!(
            text,
            "  peer        node {} ({}): {}, priority {}, {state}, {}heard {} ms ago",
            peer.node,
            peer.name,
            peer.role,
            peer.priority,
            held(peer),
            peer.heard_ms
        )?;
    }
    let skipped = group.last_events.len().saturating_sub(EVENTS_SHOWN);
    for event in group.last_events.iter().skip(skipped) {
        writeln!(text, "  event       {:.1} s ago: {}: {}", event.age_s, event.event, event.text)?;
    }
    Ok(())
}

/// What a master knows of a follower; nothing on who is no master.
fn held(peer: &PeerRow) -> String {
    let Some(behind) = peer.behind else { return String::new() };
    let pace = if peer.lagging { "lagging".to_owned() } else { format!("credit {}", peer.credit) };
    format!("proven, {behind} records behind, {pace}, ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sandbox::{CapabilityRow, Layer, SandboxStatus};
    use crate::daemon::status::{
        AddressStatus, EventRow, KernelRow, LinkRow, NodeName, PeerSealRow, Rates, ReloadStatus, RouteStatus,
        STATUS_SCHEMA, SealRow, SwapStatus,
    };
    use std::collections::BTreeMap;

    fn status() -> NodeStatus {
        let group = GroupStatus {
            sync_id: 51,
            role: "backup".into(),
            term: 7,
            priority: 100,
            master: Some(2),
            sync: "in_sync".into(),
            entries: 3,
            capacity: 10,
            annex_used: 5,
            annex_blocks: 64,
            digest: Some("0000000000000abc".into()),
            digest_age_s: Some(0.25),
            unacknowledged: Some(2),
            unacknowledged_records: Some(9),
            unacknowledged_age_s: Some(0.0125),
            rpo_records: Some(7),
            rpo_s: Some(0.01),
            rates: Some(Rates {
                over_s: 1.0,
                frames_received_per_s: 30.0,
                frames_sent_per_s: 10.0,
                records_received_per_s: 500.0,
                records_sent_per_s: 0.0,
                updates_per_s: 0.0,
            }),
            drops: BTreeMap::from([("checksum".into(), 3)]),
            link_up: true,
            seal: Some(SealRow {
                auth: "enforce".into(),
                secrets: vec![0, 1],
                seals_with: Some(0),
                waits_for: vec![],
                ready: true,
            }),
            links: vec![
                LinkRow {
                    name: "eth1".into(),
                    up: true,
                    condition: "up".into(),
                    mtu: 9000,
                    transport: "packet".into(),
                    frames_received: 12,
                    frames_sent: 34,
                    ..LinkRow::default()
                },
                LinkRow {
                    name: "eth2".into(),
                    condition: "no carrier".into(),
                    mtu: 1500,
                    transport: "raw".into(),
                    instead_of: Some("packet: it is not there".into()),
                    send_errors: 5,
                    ..LinkRow::default()
                },
            ],
            configured_priority: Some(150),
            tracks: vec![
                TrackRow {
                    name: "uplink".into(),
                    kind: "interface".into(),
                    up: Some(false),
                    number: None,
                    age_s: 3.25,
                    weight: -50,
                    output: "no carrier".into(),
                    checks: 2,
                    failures: 1,
                    not_run: 0,
                },
                TrackRow {
                    name: "web".into(),
                    kind: "http".into(),
                    up: None,
                    number: None,
                    age_s: 0.5,
                    weight: 0,
                    output: String::new(),
                    checks: 0,
                    failures: 0,
                    not_run: 0,
                },
            ],
            addresses: vec![AddressStatus { address: "192.0.2.10/24 dev eth0".into(), held: Some(false) }],
            routes: vec![
                RouteStatus { route: "default via 192.0.2.1".into(), held: Some(false) },
                RouteStatus { route: "203.0.113.0/24 dev eth0".into(), held: None },
            ],
            peers: vec![PeerRow {
                node: 2,
                capabilities: vec!["conn6".into()],
                kernel_capacity: Some(2000),
                kernel_buckets: None,
                name: "lb-b".into(),
                role: "master".into(),
                priority: 150,
                established: true,
                cold: false,
                draining: false,
                frontier: 0,
                credit: 0,
                lagging: false,
                acknowledged: None,
                behind: None,
                seal: PeerSealRow {
                    opens: vec![0, 1],
                    sealed_with: Some(0),
                    ready: Some(true),
                    ..PeerSealRow::default()
                },
                heard_ms: 12,
            }],
            last_events: (0..7)
                .map(|number| EventRow {
                    age_s: 9.0 - f64::from(number),
                    event: "LinkUp".into(),
                    text: format!("{number}"),
                })
                .collect(),
            kernel_verified: Some(KernelVerified { entries: 4, differing: 0, missing: 0, extra: 0, age_s: 7.5 }),
            kernel: Some(KernelRow {
                capacity: 1000,
                entries: 5,
                buckets: 64,
                peer_capacity: Some(2000),
                peer_buckets: Some(128),
            }),
            ..GroupStatus::default()
        };
        NodeStatus {
            schema: STATUS_SCHEMA.into(),
            node: NodeName { id: 1, name: "lb-a".into(), version: "0.1.0".into() },
            refused_requests: BTreeMap::new(),
            reload: Some(ReloadStatus { age_s: 12.0, result: "refused".into(), text: "not reloaded: x".into() }),
            huge_pages: Some("never".into()),
            swap: Some(SwapStatus { locked: false, problem: Some("x; do y".into()) }),
            sandbox: SandboxStatus {
                capabilities: vec![CapabilityRow { name: "CAP_NET_RAW".into(), purpose: "x".into() }],
                no_new_privileges: Layer { applied: true, reason: String::new() },
                system_calls: Layer { applied: true, reason: String::new() },
                files: Layer { applied: true, reason: String::new() },
            },
            groups: vec![group, GroupStatus::waiting(52, 100, "there is no interface eth9".into())],
        }
    }

    #[test]
    fn the_picture_for_a_person() {
        insta::assert_snapshot!(words(&status(), false), @r#"
        node 1 (lb-a), ssyncp 0.1.0
        keys may be written to swap: x; do y
        reload refused, 12.0 s ago: not reloaded: x
        huge pages are switched off (transparent_hugepage: never): a large table is slower
        sandbox CAP_NET_RAW; held in: no new privileges, system calls, files

        group 51: backup, ready
          master      node 2, term 7, own priority 100 (150 configured)
          sync        in_sync, digest 0000000000000abc, proven 0.2 s ago
          seal        enforce, frames leave sealed with secret 0, opens 0, 1; every peer is ready
          table       3 of 10 flows
          annex       5 of 64 blocks
          kernel      5 of 1000 entries, the peer's can hold 2000
          verified    4 entries 7.5 s ago: as written
          waiting     0 to be sent, 0 to be written
          at risk     7 records that no proven peer holds, the oldest 0.010 s old
          behind      9 records that not every proven peer holds, the oldest 0.013 s old
          per second  0 records in 10 frames out, 500 in 30 in
          refused     checksum 3
          link        up
          link        eth1: up, packet, MTU 9000, 12 frames in, 34 out, 0 not sent
          link        eth2: no carrier, raw, MTU 1500, 0 frames in, 0 out, 5 not sent
          link        eth2 runs on raw, because of packet: it is not there
          track       uplink (interface, weight -50): down for 3.2 s: no carrier
          track       web (http, weight 0): not known yet for 0.5 s
          address     192.0.2.10/24 dev eth0: not held
          route       default via 192.0.2.1: not held
          route       203.0.113.0/24 dev eth0: unknown
          peer        node 2 (lb-b): master, priority 150, warm, seals with 0, opens 0, 1, heard 12 ms ago
          event       7.0 s ago: LinkUp: 2
          event       6.0 s ago: LinkUp: 3
          event       5.0 s ago: LinkUp: 4
          event       4.0 s ago: LinkUp: 5
          event       3.0 s ago: LinkUp: 6

        group 52: init, not ready: there is no interface eth9
          master      none known, term 0, own priority 100
          sync        cold, digest none yet
          table       0 of 0 flows
          waiting     0 to be sent, 0 to be written
          link        down
        "#);
    }

    #[test]
    fn a_repair_says_how_far_it_is_and_what_is_known_to_differ() {
        let mut status = status();
        let group = &mut status.groups[0];
        (group.sync, group.buckets_different) = ("diverged".into(), 31);
        let progress = ProgressRow { percent: 75, buckets_left: 1024, records_per_s: 5000, eta_s: Some(2.5) };
        group.progress = Some(progress);
        let text = words(&status, false);
        assert!(text.contains("  progress    75 %, 1024 buckets left, 5000 records/s, 2.5 s left\n"), "{text}");
        assert!(text.contains("  different   31 of 4096 buckets\n"), "{text}");
        status.groups[0].progress = Some(ProgressRow { eta_s: None, ..progress });
        assert!(words(&status, false).contains("5000 records/s, end not known yet\n"));
    }

    #[test]
    fn a_follower_is_shown_with_what_it_lacks_and_what_it_can_take() {
        let mut status = status();
        let peer = &mut status.groups[0].peers[0];
        (peer.behind, peer.credit) = (Some(130), 512);
        let text = words(&status, false);
        assert!(text.contains("proven, 130 records behind, credit 512, heard 12 ms ago\n"), "{text}");
        status.groups[0].peers[0].lagging = true;
        status.groups[0].peers[0].draining = true;
        status.groups[0].draining = vec!["operator".into(), "track".into()];
        (status.groups[0].heir, status.groups[0].asks) = (Some(3), true);
        let text = words(&status, false);
        assert!(
            text.contains(
                "warm, draining, seals with 0, opens 0, 1, proven, 130 records behind, lagging, heard 12 ms ago\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_an_audit_found_wrong_is_named() {
        let mut status = status();
        let verified = KernelVerified { entries: 4, differing: 1, missing: 2, extra: 3, age_s: 0.0 };
        status.groups[0].kernel_verified = Some(verified);
        let text = words(&status, false);
        assert!(text.contains("  verified    4 entries 0.0 s ago: 1 other, 2 missing, 3 stale\n"), "{text}");
    }

    #[test]
    fn a_classic_group_has_no_term_and_no_proof() {
        let mut status = status();
        status.groups.truncate(1);
        let group = &mut status.groups[0];
        (group.profile, group.sync, group.buckets_unproven) = (Profile::Classic, "unknown".into(), 4096);
        (group.digest_age_s, group.peers, group.addresses, group.last_events) = (None, vec![], vec![], vec![]);
        (group.kernel, group.kernel_verified, group.rates, group.annex_used) = (None, None, None, 0);
        (group.unacknowledged_records, group.rpo_records, group.seal) = (None, None, None);
        (group.drops, group.links, group.tracks, group.routes) = (BTreeMap::new(), vec![], vec![], vec![]);
        (status.reload, status.swap, status.huge_pages) = (None, None, Some("madvise".into()));
        insta::assert_snapshot!(words(&status, false), @r#"
        node 1 (lb-a), ssyncp 0.1.0
        sandbox CAP_NET_RAW; held in: no new privileges, system calls, files

        group 51: backup, ready
          profile     classic: roles by hand, nothing is proven
          sync        unknown, digest 0000000000000abc
          table       3 of 10 flows
          waiting     0 to be sent, 0 to be written
          link        up
        "#);
    }

    #[test]
    fn colour_marks_the_verdict_only() {
        let text = words(&status(), true);
        assert!(text.contains("\x1b[32mready\x1b[0m") && text.contains("\x1b[31mnot ready: there is no"));
        assert_eq!(text.matches('\x1b').count(), 4);
    }
}
