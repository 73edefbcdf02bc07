//! What two tables owe each other when one of two masters has given way.

use super::super::merge::Stream;
use super::*;
use crate::wire::{CURSOR_END, MergePull, Target};

const THIRD: Stream = (NodeId(3), 7);

/// Node 1 was master beside node 0 and learned an entry that node 0 lacks; then it followed a third one, of which frame 40
/// spoke of that entry (or did not), and follows node 0 now. Node 0 had heard the third one up to `heard`, and says "done".
fn done(spoken: bool, stream: Stream, heard: u64) -> Stage {
    let mut stage = Stage::pair();
    let (now, third) = (stage.now, (THIRD.0, THIRD.1, 2).into());
    let (name, value) = (Name::of_flow(&flow(500, 0).key), Value::of_flow(&flow(500, 0)));
    stage.oracle.note_learned(now, 1, name, Some(value));
    let followed = stage.oracle.nodes[1].following.replace(third);
    if spoken {
        stage.oracle.note_replaced(1, name, 40);
    }
    let loser = &mut stage.oracle.nodes[1];
    loser.shadow.put(now, name, Some(value), 40);
    loser.shadow.begin_stream();
    loser.following = followed;
    let winner = &mut stage.oracle.nodes[0];
    (winner.following, winner.frontier) = (Some((stream.0, stream.1, 2).into()), heard);
    stage.oracle.note_followed(0);
    stage.oracle.nodes[0].following = None;
    let target = Target { node: NodeId(2), incarnation: 101 };
    let pull = MergePull { target, node: NodeId(2), incarnation: 101, after: 0, cursor: CURSOR_END };
    stage.oracle.note_question(now, 0, &stage.engines[0], &pull);
    stage
}

#[test]
fn a_master_that_has_all_and_lacks_what_a_loser_learned_is_noticed() {
    done(false, THIRD, 40).fires("merge");
}

#[test]
fn what_a_third_stream_has_put_in_the_place_of_a_word_is_known_to_who_has_heard_that_stream() {
    done(true, THIRD, 40).is_silent();
    done(true, THIRD, 41).is_silent();
    done(true, THIRD, 39).fires("merge");
    done(true, (NodeId(3), 8), 40).fires("merge");
}
