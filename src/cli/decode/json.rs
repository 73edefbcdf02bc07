//! A packet as one JSON object: `ssyncp.frame/1` (docs/schemas/frame.json). Numbers that are names and have 64 bits
//! (incarnation, digest, seed) are 16 hexadecimal digits, because many readers of JSON lose the low bits of large numbers.

use super::frame_checks;
use crate::cli::recording::{Content, Seen};
use crate::daemon::flows::FlowRow;
use crate::flow::Flow;
use crate::wire::ipvs::{Connection, Message, Sequence, WordOrder, state};
use crate::wire::{self, Advert, Frame, FrameError, Header, Payload, Record, Secret, Target, classic, unseal};
use serde_json::{Value, json};
use std::time::Duration;

/// The schema of each line.
const SCHEMA: &str = "ssyncp.frame/1";

/// One packet, and the end of the line.
pub(super) fn line(seen: &Seen<'_>, order: WordOrder, secrets: &[Secret]) -> String {
    let ip = &seen.datagram;
    let mut object = json!({
        "schema": SCHEMA,
        "number": seen.number,
        "offset": seen.offset,
        "time": seconds(seen.time),
        "source": ip.source,
        "destination": ip.destination,
        "protocol": ip.protocol,
        "ttl": ip.ttl,
        "length": ip.length,
        "fragmented": ip.fragmented,
        "checks": [],
        "verdict": "accepted",
        "frame": null,
        "classic": null,
        "ipvs": null,
    });
    match seen.content {
        Content::Frame(bytes) => {
            let checks = frame_checks(seen, bytes, secrets);
            let rows =
                checks.iter().map(|(name, passed, reason)| json!({"name": name, "passed": passed, "reason": reason}));
            object["checks"] = rows.collect();
            let refused = if wire::classic::claims(bytes) {
                let parsed = classic::Message::parse(bytes);
                object["classic"] = parsed.ok().map(|parsed| draft(bytes[0], parsed)).into();
                parsed.and_then(classic::Message::verify).err()
            } else {
                let (shown, refused) = read(bytes, secrets);
                object["frame"] = shown;
                refused
            };
            if let Some(reason) = refused {
                object["verdict"] = reason.name().into();
            } else if let Some((name, ..)) = checks.iter().find(|(_, passed, _)| *passed == Some(false)) {
                // Refused below the protocol.
                object["verdict"] = (*name).into();
            }
        }
        Content::Ipvs(port, bytes) => match Message::parse(bytes, order) {
            Ok(parsed) => object["ipvs"] = message(port, &parsed),
            Err(reason) => object["verdict"] = reason.name().into(),
        },
    }
    object.to_string() + "\n"
}

/// Seconds since the epoch, with all nanoseconds.
pub(super) fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// A frame as who has these secrets reads it, and why it is refused.
fn read(bytes: &[u8], secrets: &[Secret]) -> (Value, Option<FrameError>) {
    let mut copy = bytes.to_vec();
    match unseal(secrets, &mut copy) {
        Ok(opened) => (frame(opened, true), opened.verify().err()),
        Err(error) => (Frame::parse(bytes).ok().map(|sealed| frame(sealed, false)).into(), Some(error)),
    }
}

/// A frame whose header may be believed; its payload is null if it was refused.
fn frame(frame: Frame<'_>, opened: bool) -> Value {
    let header = frame.header();
    let Header { sync_id, kind, flags, node, incarnation, seq, term } = header;
    json!({
        "sync_id": sync_id,
        "kind": kind.name(),
        "kind_number": kind.0,
        "flags": flags.0,
        "node": node.0,
        "incarnation": hex(incarnation),
        "seq": seq,
        "term": term,
        "seal": flags.is_sealed().then(|| json!({"secret": flags.key_id(), "opened": opened})),
        "payload": frame.verify().ok().map(|verified| payload(sync_id, verified.payload())),
    })
}

fn payload(sync_id: u8, payload: Payload<'_>) -> Value {
    match payload {
        Payload::Advert(word) => advert(&word),
        Payload::Data(records) => json!({ "records": records.map(|it| record(sync_id, it)).collect::<Value>() }),
        Payload::Status(status) => json!({
            "target": target(&status.target),
            "frontier": status.frontier,
            "base": status.base,
            "credit": status.credit,
            "state": status.state.name(),
            "missing": status.missing.iter().map(|it| json!({"first": it.first(), "count": it.length()})).collect::<Value>(),
        }),
        Payload::Pull(pull) => json!({
            "target": target(&pull.target),
            "buckets": pull.ranges.iter().map(|it| json!({"first": it.first(), "count": it.count()})).collect::<Value>(),
        }),
        Payload::DigestsRequest(request) => json!({
            "target": target(&request.target),
            "buckets": [{"first": request.buckets.first(), "count": request.buckets.count()}],
        }),
        Payload::DigestsAnswer(answer) => json!({
            "target": target(&answer.target),
            "cut": answer.cut,
            "digests": answer.iter().map(|(bucket, digest)| json!({"bucket": bucket, "digest": digest.map(hex)}))
                .collect::<Value>(),
        }),
        Payload::MergePull(pull) => json!({
            "target": target(&pull.target),
            "stream": {"node": pull.node.0, "incarnation": hex(pull.incarnation)},
            "after": pull.after,
            "cursor": hex(pull.cursor),
        }),
        Payload::MergeRecords(answer) => json!({
            "target": target(&answer.target),
            "cursor": hex(answer.cursor),
            "next": hex(answer.next),
            "records": answer.records.map(|it| record(sync_id, it)).collect::<Value>(),
        }),
    }
}

fn target(target: &Target) -> Value {
    json!({"node": target.node.0, "incarnation": hex(target.incarnation)})
}

fn advert(advert: &Advert<'_>) -> Value {
    let peers = advert.peers.iter().map(|peer| {
        json!({
            "node": peer.node().0,
            "incarnation": hex(peer.incarnation()),
            "credit": peer.credit(),
            "heard": peer.heard(),
            "frontier": peer.frontier(),
        })
    });
    json!({
        "name": String::from_utf8_lossy(advert.name),
        "role": advert.role.name(),
        "priority": advert.priority,
        "interval_ms": advert.interval_ms,
        "flags": advert.flags.0,
        "term_start": advert.term_start,
        "stream_seq": advert.stream_seq,
        "history_start": advert.history_start,
        "digest": hex(advert.digest),
        "entries": advert.entries,
        "follows": {
            "node": advert.follows.node.0,
            "heir": advert.follows.heir.0,
            "incarnation": hex(advert.follows.incarnation),
            "term": advert.follows.term,
        },
        "hash_seed": hex(advert.hash_seed),
        "capabilities": advert.capabilities.0,
        "kernel_capacity": advert.kernel_capacity,
        "kernel_buckets": advert.kernel_buckets,
        "peers": peers.collect::<Value>(),
    })
}

fn record(sync_id: u8, record: Record<'_>) -> Value {
    match record {
        Record::Upsert(conn) => json!({"operation": "upsert", "flow": FlowRow::new(sync_id, &conn.flow())}),
        // Only its key is known.
        Record::Delete(conn) => {
            json!({"operation": "delete", "flow": FlowRow::new(sync_id, &Flow::new(conn.key()))})
        }
        Record::BucketEnd { bucket, since } => json!({"operation": "bucket_end", "bucket": bucket, "since": since}),
        Record::Section(section) => json!({
            "operation": if section.fragment.is_some() { "upsert" } else { "delete" },
            "section": {
                "table": section.table,
                "key": section.key.escape_ascii().to_string(),
                "fragment": section.fragment.map(|it| json!({
                    "expiry_s": it.expiry,
                    "total_bytes": it.total,
                    "offset": it.offset,
                    "back": it.back,
                    "bytes": it.bytes.len(),
                })),
            },
        }),
        Record::Unknown { kind } => json!({"operation": "unknown", "type": kind}),
    }
}

/// A message of the classic profile; its records are null if one of them was refused.
fn draft(count: u8, message: classic::Message<'_>) -> Value {
    let records = message.verify().ok().map(|records| records.map(record_of_ipvs).collect::<Value>());
    json!({"sync_id": message.sync_id(), "count": count, "records": records})
}

fn record_of_ipvs(record: wire::ipvs::Record<'_>) -> Value {
    match record {
        Ok(it) => connection(&it),
        Err(skipped) => json!({"skipped": skipped.name()}),
    }
}

fn message(port: u16, message: &Message<'_>) -> Value {
    let records = message.records().map(record_of_ipvs);
    json!({
        "port": port,
        "version": message.version,
        "sync_id": message.sync_id,
        "count": message.count,
        "surplus": message.surplus,
        "records": records.collect::<Value>(),
    })
}

/// A connection of IPVS, as `decode` and `replay` show it.
pub(in crate::cli) fn connection(connection: &Connection<'_>) -> Value {
    let sequence =
        |it: Sequence| json!({"initial": it.initial, "delta": it.delta, "previous_delta": it.previous_delta});
    let engine = (!connection.engine.is_empty()).then(|| {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        json!({"name": text(connection.engine), "data": text(connection.engine_data)})
    });
    json!({
        "protocol": connection.protocol,
        "client": connection.client.address,
        "client_port": connection.client.port,
        "service": connection.service.address,
        "service_port": connection.service.port,
        "server": connection.server.address,
        "server_port": connection.server.port,
        "forwarding": connection.flags.forwarding().name(),
        "flags": connection.flags.0,
        "template": connection.flags.is_template(),
        "state": connection.state,
        "state_name": state::name(connection),
        "timeout_s": connection.timeout_s(),
        "firewall_mark": connection.firewall_mark,
        "sequences": connection.sequences.map(|it| json!({"in": sequence(it.incoming), "out": sequence(it.outgoing)})),
        "engine": engine,
    })
}
