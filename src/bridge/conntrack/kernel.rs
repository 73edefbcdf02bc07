//! Names and numbers of linux/netfilter/nfnetlink_conntrack.h, without the prefix `CTA_` or `IPCTNL_MSG_CT_`.

pub(super) const SUBSYSTEM: u16 = 1 << 8;
pub(super) const NEW: u16 = SUBSYSTEM;
pub(super) const GET: u16 = SUBSYSTEM | 1;
pub(super) const DELETE: u16 = SUBSYSTEM | 2;
pub(super) const GET_STATS: u16 = SUBSYSTEM | 5;

pub(super) const TUPLE_ORIG: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
pub(super) const PROTOINFO: u16 = 4;
pub(super) const HELP: u16 = 5;
pub(super) const NAT_SRC: u16 = 6;
pub(super) const TIMEOUT: u16 = 7;
pub(super) const MARK: u16 = 8;
pub(super) const NAT_DST: u16 = 13;
pub(super) const TUPLE_MASTER: u16 = 14;
pub(super) const SEQ_ADJ_ORIG: u16 = 15;
pub(super) const SEQ_ADJ_REPLY: u16 = 16;
pub(super) const ZONE: u16 = 18;
pub(super) const LABELS: u16 = 22;
pub(super) const SYNPROXY: u16 = 24;

pub(super) const TUPLE_IP: u16 = 1;
pub(super) const TUPLE_PROTO: u16 = 2;
pub(super) const TUPLE_ZONE: u16 = 3;

pub(super) const IP_V4_SRC: u16 = 1;
pub(super) const IP_V4_DST: u16 = 2;

pub(super) const PROTO_NUM: u16 = 1;
pub(super) const PROTO_SRC_PORT: u16 = 2;
pub(super) const PROTO_DST_PORT: u16 = 3;
pub(super) const PROTO_ICMP_ID: u16 = 4;
pub(super) const PROTO_ICMP_TYPE: u16 = 5;
pub(super) const PROTO_ICMP_CODE: u16 = 6;

pub(super) const PROTOINFO_TCP: u16 = 1;
pub(super) const TCP_STATE: u16 = 1;
pub(super) const TCP_WSCALE_ORIGINAL: u16 = 2;
pub(super) const TCP_WSCALE_REPLY: u16 = 3;
pub(super) const TCP_FLAGS_ORIGINAL: u16 = 4;
pub(super) const TCP_FLAGS_REPLY: u16 = 5;

pub(super) const NAT_V4_MINIP: u16 = 1;
pub(super) const NAT_V4_MAXIP: u16 = 2;
pub(super) const NAT_PROTO: u16 = 3;
pub(super) const NAT_PORT_MIN: u16 = 1;
pub(super) const NAT_PORT_MAX: u16 = 2;

pub(super) const AF_INET: u8 = 2;
