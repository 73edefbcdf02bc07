//! The states of IPVS, how long each lives, and which of conntrack's it is.
//!
//! Numbers, names and time-outs are those of include/net/ip_vs.h and net/netfilter/ipvs/ip_vs_proto_{tcp,udp,sctp,ah_esp}.c.
//! The draft of 2002 has the same states of TCP, so its messages are read with this table, too.
//!
//! ```text
//!   IPVS       0 NONE  1 ESTABLISHED  2 SYN_SENT  3 SYN_RECV  4 FIN_WAIT  5 TIME_WAIT  6 CLOSE  7 CLOSE_WAIT
//!              8 LAST_ACK  9 LISTEN  10 SYNACK
//!   conntrack  0 NONE  1 SYN_SENT  2 SYN_RECV  3 ESTABLISHED  4 FIN_WAIT  5 CLOSE_WAIT  6 LAST_ACK  7 TIME_WAIT
//!              8 CLOSE  9 SYN_SENT2
//! ```

use super::Connection;
use crate::flow::protocol;

/// IANA protocol number of ESP (RFC 4303).
const ESP: u8 = 50;
/// IANA protocol number of AH (RFC 4302).
const AH: u8 = 51;
/// IANA protocol number of SCTP (RFC 9260).
const SCTP: u8 = 132;

/// `IP_VS_CTPL_S_ASSURED`: the highest state of a template.
pub const TEMPLATE_ASSURED: u16 = 1;
/// Seconds that the kernel gives to what has no entry in a table: a template of version 0, AH and ESP (`ip_vs_proc_conn`).
pub const UNKNOWN_TIMEOUT: u32 = 180;

/// One state: its name, its default time-out in seconds, and for TCP the number of conntrack's state.
struct State {
    name: &'static str,
    timeout: u32,
    conntrack: u8,
}

const fn state(name: &'static str, timeout: u32, conntrack: u8) -> State {
    State { name, timeout, conntrack }
}

const TCP_STATES: [State; 11] = [
    state("NONE", 2, 0),
    state("ESTABLISHED", 900, 3),
    state("SYN_SENT", 120, 1),
    state("SYN_RECV", 60, 2),
    state("FIN_WAIT", 120, 4),
    state("TIME_WAIT", 120, 7),
    state("CLOSE", 10, 8),
    state("CLOSE_WAIT", 60, 5),
    state("LAST_ACK", 30, 6),
    // Conntrack has nothing for a connection of which only the server has spoken.
    state("LISTEN", 120, 1),
    state("SYNACK", 120, 2),
];

/// IPVS's state for each of conntrack's, 0 to 9. A simultaneous open (SYN_SENT2) is still a SYN that waits.
const FROM_CONNTRACK: [u16; 10] = [0, 2, 3, 1, 4, 7, 8, 5, 6, 2];

const UDP_STATES: [State; 1] = [state("UDP", 300, 0)];

const SCTP_STATES: [State; 14] = [
    state("NONE", 2, 0),
    state("INIT1", 4, 0),
    state("INIT", 61, 0),
    state("C-SENT", 61, 0),
    state("C-REPLIED", 61, 0),
    state("C-WAIT", 61, 0),
    state("COOKIE", 61, 0),
    state("C-ECHOED", 61, 0),
    state("ESTABLISHED", 900, 0),
    state("S-SENT", 61, 0),
    state("S-RECEIVED", 61, 0),
    state("S-ACK-SENT", 61, 0),
    state("REJECTED", 4, 0),
    state("CLOSED", 61, 0),
];

/// AH and ESP have one state without a table of time-outs.
const SECURITY_STATES: [State; 1] = [state("NONE", UNKNOWN_TIMEOUT, 0)];

fn table(protocol: u8) -> Option<&'static [State]> {
    match protocol {
        protocol::TCP => Some(&TCP_STATES),
        protocol::UDP => Some(&UDP_STATES),
        SCTP => Some(&SCTP_STATES),
        AH | ESP => Some(&SECURITY_STATES),
        _ => None,
    }
}

/// How many states a protocol has; `None` if IPVS does not balance it.
pub fn count(protocol: u8) -> Option<u16> {
    table(protocol).map(|states| states.len() as u16)
}

/// Seconds that a connection in this state lives without a packet, where no administrator has changed them; `None` if IPVS
/// does not balance the protocol, or it has no such state.
pub fn default_timeout(protocol: u8, state: u16) -> Option<u32> {
    table(protocol)?.get(usize::from(state)).map(|state| state.timeout)
}

/// The state's name as `ipvsadm -Lc` shows it.
pub fn name(connection: &Connection<'_>) -> &'static str {
    let state = connection.state;
    if connection.flags.is_template() {
        return if state == TEMPLATE_ASSURED { "ASSURED" } else { "NONE" };
    }
    table(connection.protocol).and_then(|states| states.get(usize::from(state))).map_or("UNKNOWN", |state| state.name)
}

/// Conntrack's state of TCP (`enum tcp_conntrack`) for one of IPVS's; 0, NONE, for a number that IPVS does not have.
pub fn to_conntrack(state: u16) -> u8 {
    TCP_STATES.get(usize::from(state)).map_or(0, |state| state.conntrack)
}

/// IPVS's state of TCP for one of conntrack's; 0, NONE, for a number that conntrack does not have.
pub fn from_conntrack(state: u8) -> u16 {
    FROM_CONNTRACK.get(usize::from(state)).copied().unwrap_or(0)
}

/// Whether a TCP connection in this state of IPVS has not been answered yet.
pub(super) fn is_opening(state: u16) -> bool {
    matches!(TCP_STATES.get(usize::from(state)).map(|state| state.name), Some("NONE" | "SYN_SENT" | "LISTEN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// net/netfilter/ipvs/ip_vs_proto_tcp.c, `tcp_timeouts`, and the others.
    #[test]
    fn each_state_lives_as_long_as_in_the_kernel() {
        let of = |protocol| -> Vec<u32> {
            (0..count(protocol).unwrap()).map(|state| default_timeout(protocol, state).unwrap()).collect()
        };
        assert_eq!(of(6), [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120]);
        assert_eq!(of(17), [300]);
        assert_eq!(of(132), [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61]);
        assert_eq!((of(50), of(51)), (vec![180], vec![180]));
        assert_eq!((default_timeout(6, 11), default_timeout(1, 0), count(1)), (None, None, None));
    }

    #[test]
    fn states_of_conntrack_come_back_from_ipvs() {
        for state in 0..=8 {
            assert_eq!(to_conntrack(from_conntrack(state)), state);
        }
        assert_eq!((from_conntrack(3), from_conntrack(5), from_conntrack(7)), (1, 7, 5));
        assert_eq!((from_conntrack(9), from_conntrack(10)), (2, 0), "SYN_SENT2 waits as SYN_SENT does");
        assert_eq!((to_conntrack(10), to_conntrack(9), to_conntrack(11)), (2, 1, 0));
    }
}
