//! What only some flows have: rows of attributes, and what is in each.

use super::frames::captured_flows;
use super::kernel::expected;
use ssyncp::flow::{
    Attributes, ProtocolInfo, SequenceAdjustment, Tuple, attribute, check_attributes, read_expectations,
    write_expectations,
};

/// A row of attributes as it travels; then the same bytes as the data of each attribute.
pub fn attributes(data: &[u8]) {
    row(data);
    contents(&data[..data.len().min(255)]);
}

/// Attributes of the recordings, and one of each kind.
pub fn attribute_seeds() -> Vec<Vec<u8>> {
    let captured = captured_flows().into_iter().map(|flow| flow.attributes.as_bytes().to_vec());
    let tuple = Tuple {
        source: [10, 0, 0, 1].into(),
        destination: [192, 0, 2, 10].into(),
        source_port: 40_000,
        destination_port: 21,
        protocol: 6,
    };
    let expectations = write_expectations(&expected()).0;
    let mut all = Attributes::NONE;
    for (kind, data) in [
        (attribute::SEQUENCE_ADJUSTMENT, &[1; 24][..]),
        (attribute::LABELS, &[2; 16]),
        (attribute::HELPER, b"ftp"),
        (attribute::IPVS, &[0, 0, 0x10, 0, 0, 0, 0, 7, 3, 5, b's', b'i', b'p', b'a', b'@', b'b', b'.', b'c']),
        (attribute::MASTER, &tuple.to_wire().expect("one family")),
        (attribute::SYNPROXY, &[3; 12]),
        (attribute::EXPECTATIONS, &expectations),
        (attribute::PROTOCOL, &[4; 8]),
        (200, b"unknown"),
    ] {
        all.set(kind, data).expect("room");
    }
    let each = all.iter().map(|(_, data)| data.to_vec()).collect::<Vec<_>>();
    captured.filter(|row| !row.is_empty()).chain([all.as_bytes().to_vec()]).chain(each).collect()
}

/// Taken and given as the same bytes; put together from its parts, in any order, and taken apart again.
fn row(data: &[u8]) {
    let taken = Attributes::from_wire(data);
    assert_eq!(taken.as_ref().map(drop), check_attributes(data).as_ref().map(drop));
    let Ok(taken) = taken else { return };
    assert_eq!(taken.as_bytes(), data);
    let mut again = Attributes::NONE;
    let parts: Vec<(u8, &[u8])> = taken.iter().collect();
    for (kind, data) in parts.iter().rev() {
        assert_eq!(again.set(*kind, data), Ok(()));
        assert_eq!(again.set(*kind, data), Ok(()), "replaced by itself");
    }
    assert_eq!(again, taken);
    let _ = (taken.sequence_adjustment(), taken.labels(), taken.helper(), taken.master(), taken.synproxy());
    let _ = (taken.expectations(), taken.protocol_info(), format!("{taken:?}"));
    for (kind, data) in parts {
        assert_eq!(again.get(kind), Some(data));
        assert!(again.remove(kind) && !again.remove(kind));
    }
    assert_eq!(again, Attributes::NONE);
}

/// What can be read of an attribute is written as the same bytes.
fn contents(data: &[u8]) {
    if let Some(tuple) = Tuple::from_wire(data) {
        assert_eq!(tuple.to_wire().as_deref(), Some(data));
    }
    if let Some(info) = ProtocolInfo::from_wire(data) {
        assert_eq!(info.to_wire(), data);
    }
    let holding = |kind| {
        let mut attributes = Attributes::NONE;
        attributes.set(kind, data).expect("255 bytes fit");
        attributes
    };
    if let Some(sides) = holding(attribute::SEQUENCE_ADJUSTMENT).sequence_adjustment() {
        assert_eq!(SequenceAdjustment::to_wire(&sides), data);
    }
    if let Some(synproxy) = holding(attribute::SYNPROXY).synproxy() {
        assert_eq!(synproxy.to_wire(), data);
    }
    let Some(expectations) = read_expectations(data) else { return };
    let (written, left_out) = write_expectations(&expectations);
    assert_eq!((written.len(), left_out), (data.len(), 0), "an entry is lost");
    let mut entries = Vec::new();
    let mut rest = data;
    while let Some(&length) = rest.first() {
        let (entry, behind) = rest.split_at(usize::from(length));
        entries.push(entry);
        rest = behind;
    }
    entries.sort_unstable();
    assert_eq!(written, entries.concat());
}
