//! What comes out of keepalived's FIFO: pieces, lines, and what they say.

use ssyncp::daemon::driven::line::{LINE_LEN_MAX, Line, Lines, Name, Refused};

/// The first byte is the length of the pieces that the rest comes in.
pub fn fifo(data: &[u8]) {
    let Some((&length, data)) = data.split_first() else { return };
    let (mut lines, mut seen) = (Lines::default(), Vec::new());
    for piece in data.chunks(usize::from(length).max(1)) {
        lines.feed(piece, |line| seen.push(line.map(<[u8]>::to_vec)));
    }
    let mut expected: Vec<Result<Vec<u8>, Refused>> = data
        .split(|byte| *byte == b'\n')
        .map(|line| if line.len() > LINE_LEN_MAX { Err(Refused::TooLong) } else { Ok(line.to_vec()) })
        .collect();
    // What stands behind the last end of a line has not ended yet.
    expected.pop();
    assert!(seen == expected, "the same bytes in pieces are other lines");
    seen.iter().flatten().for_each(|line| said(line));
    if let Some(name) = std::str::from_utf8(data).ok().and_then(|text| Name::parse(text).ok()) {
        assert_eq!(Name::parse(&name.to_string()), Ok(name));
    }
}

/// What a line says is said again in its plainest words.
fn said(line: &[u8]) {
    let Ok(Line::State { kind, name, state, priority }) = Line::parse(line) else { return };
    let again = format!("{kind} \"{name}\" {} {priority}", state.word());
    assert_eq!(Line::parse(again.as_bytes()), Ok(Line::State { kind, name, state, priority }));
    let wanted = if kind == "GROUP" { Name::Group(name.to_owned()) } else { Name::Instance(name.to_owned()) };
    let other = if kind == "GROUP" { Name::Instance(name.to_owned()) } else { Name::Group(name.to_owned()) };
    let line = Line::parse(line).expect("it was read before");
    assert_eq!((line.about(&wanted), line.about(&other)), (Some((state, priority)), None));
}

/// Lines of keepalived 2.2.7, in pieces of several lengths, the longest line that is read, and names.
pub fn fifo_seeds() -> Vec<Vec<u8>> {
    let lines = "INSTANCE \"VI_51\" BACKUP 150\nINSTANCE \"VI_51\" MASTER 150\nGROUP \"G\" MASTER 0\n\
                 VS [192.0.2.10]:tcp:80 UP\nINSTANCE \"VI_51\" MASTER_RX_LOWER_PRI 150\n\
                 INSTANCE \"two words\" FAULT 255\nGROUP \"G\" STOP 0\nINSTANCE \"VI_51\" DELETED 1\n";
    let long = format!("INSTANCE \"{}\" MASTER_PRIORITY 90\nGROUP \"G\" BACKUP_PRIORITY 0\n", "x".repeat(400));
    let longest = format!("INSTANCE \"{}\" MASTER 90\n", "y".repeat(LINE_LEN_MAX - 21));
    let with = |length: u8, text: &str| [&[length], text.as_bytes()].concat();
    vec![with(255, lines), with(7, lines), with(200, &long), with(100, &longest), with(1, "group:G"), with(9, "VI_51")]
}
