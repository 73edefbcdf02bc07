//! Names and numbers of linux/netfilter/nfnetlink_conntrack.h, without the prefix `CTA_`, `IPCTNL_MSG_CT_` or
//! `IPCTNL_MSG_`.

pub(super) const SUBSYSTEM: u16 = 1 << 8;
pub(super) const NEW: u16 = SUBSYSTEM;
pub(super) const GET: u16 = SUBSYSTEM | 1;
pub(super) const DELETE: u16 = SUBSYSTEM | 2;
pub(super) const GET_STATS: u16 = SUBSYSTEM | 5;

pub(super) const EXP_SUBSYSTEM: u16 = 2 << 8;
pub(super) const EXP_NEW: u16 = EXP_SUBSYSTEM;
pub(super) const EXP_GET: u16 = EXP_SUBSYSTEM | 1;
pub(super) const EXP_DELETE: u16 = EXP_SUBSYSTEM | 2;

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
pub(super) const TIMESTAMP: u16 = 20;
pub(super) const MARK_MASK: u16 = 21;
pub(super) const LABELS: u16 = 22;
pub(super) const SYNPROXY: u16 = 24;
pub(super) const STATUS_MASK: u16 = 26;

pub(super) const TUPLE_IP: u16 = 1;
pub(super) const TUPLE_PROTO: u16 = 2;
pub(super) const TUPLE_ZONE: u16 = 3;

pub(super) const IP_V4_SRC: u16 = 1;
pub(super) const IP_V4_DST: u16 = 2;
pub(super) const IP_V6_SRC: u16 = 3;
pub(super) const IP_V6_DST: u16 = 4;

pub(super) const PROTO_NUM: u16 = 1;
pub(super) const PROTO_SRC_PORT: u16 = 2;
pub(super) const PROTO_DST_PORT: u16 = 3;
pub(super) const PROTO_ICMP_ID: u16 = 4;
pub(super) const PROTO_ICMP_TYPE: u16 = 5;
pub(super) const PROTO_ICMP_CODE: u16 = 6;
pub(super) const PROTO_ICMPV6_ID: u16 = 7;
pub(super) const PROTO_ICMPV6_TYPE: u16 = 8;
pub(super) const PROTO_ICMPV6_CODE: u16 = 9;

pub(super) const PROTOINFO_TCP: u16 = 1;
pub(super) const PROTOINFO_DCCP: u16 = 2;
pub(super) const PROTOINFO_SCTP: u16 = 3;
pub(super) const TCP_STATE: u16 = 1;
pub(super) const TCP_WSCALE_ORIGINAL: u16 = 2;
pub(super) const TCP_WSCALE_REPLY: u16 = 3;
pub(super) const TCP_FLAGS_ORIGINAL: u16 = 4;
pub(super) const TCP_FLAGS_REPLY: u16 = 5;

pub(super) const DCCP_STATE: u16 = 1;
pub(super) const DCCP_ROLE: u16 = 2;
pub(super) const DCCP_HANDSHAKE_SEQ: u16 = 3;
pub(super) const SCTP_STATE: u16 = 1;
pub(super) const SCTP_VTAG_ORIGINAL: u16 = 2;
pub(super) const SCTP_VTAG_REPLY: u16 = 3;

pub(super) const HELP_NAME: u16 = 1;
pub(super) const SEQADJ_POSITION: u16 = 1;
pub(super) const SEQADJ_BEFORE: u16 = 2;
pub(super) const SEQADJ_AFTER: u16 = 3;
pub(super) const SYNPROXY_ISN: u16 = 1;
pub(super) const SYNPROXY_ITS: u16 = 2;
pub(super) const SYNPROXY_TSOFF: u16 = 3;
pub(super) const TIMESTAMP_START: u16 = 1;

pub(super) const EXPECT_MASTER: u16 = 1;
pub(super) const EXPECT_TUPLE: u16 = 2;
pub(super) const EXPECT_MASK: u16 = 3;
pub(super) const EXPECT_TIMEOUT: u16 = 4;
pub(super) const EXPECT_HELP_NAME: u16 = 6;
pub(super) const EXPECT_ZONE: u16 = 7;
pub(super) const EXPECT_FLAGS: u16 = 8;
pub(super) const EXPECT_CLASS: u16 = 9;
pub(super) const EXPECT_NAT: u16 = 10;
pub(super) const EXPECT_FN: u16 = 11;
pub(super) const EXPECT_NAT_DIR: u16 = 1;
pub(super) const EXPECT_NAT_TUPLE: u16 = 2;

pub(super) const NAT_V4_MINIP: u16 = 1;
pub(super) const NAT_V4_MAXIP: u16 = 2;
pub(super) const NAT_V6_MINIP: u16 = 4;
pub(super) const NAT_V6_MAXIP: u16 = 5;
pub(super) const NAT_PROTO: u16 = 3;
pub(super) const NAT_PORT_MIN: u16 = 1;
pub(super) const NAT_PORT_MAX: u16 = 2;

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
