//! Stands in for the traffic side (`client`, `server`, `probe`, `watch`, `kernel`) until those files are there; deleted on
//! integration. It has their signatures and does nothing.

#![allow(missing_docs, dead_code, unreachable_pub, clippy::missing_errors_doc)]

use std::io;

fn absent<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the demo's traffic is not built yet"))
}

pub mod server {
    use crate::sys::namespace::Namespace;
    use core::net::SocketAddrV4;
    use std::io;

    pub struct ServerPlan {
        pub listen: Vec<SocketAddrV4>,
        pub udp: Vec<SocketAddrV4>,
    }
    pub struct Server;
    impl Server {
        pub fn spawn(_: &Namespace, _: &ServerPlan) -> io::Result<Server> {
            super::absent()
        }
    }
}

pub mod client {
    use crate::sys::namespace::Namespace;
    use core::net::{Ipv4Addr, SocketAddrV4};
    use std::io;
    use std::time::Duration;

    pub struct ClientPlan {
        pub targets: Vec<SocketAddrV4>,
        pub sources: Vec<Ipv4Addr>,
        pub connections: u32,
        pub fast: u32,
        pub fast_interval_ms: u64,
        pub slow_interval_ms: u64,
        pub seed: u64,
    }
    pub struct ClientVerdict {
        pub connections: u32,
        pub survived: u32,
        pub reset: u32,
        pub stalled: u32,
        pub tcp_gap_ms_p50: f64,
        pub tcp_gap_ms_max: f64,
        pub rto_min_ms: u32,
        pub bytes_checked: u64,
        pub mismatches: u64,
    }
    pub struct Client;
    impl Client {
        pub fn spawn(_: &Namespace, _: &ClientPlan) -> io::Result<Client> {
            super::absent()
        }
        pub fn wait_connected(&mut self, _: Duration) -> io::Result<u32> {
            super::absent()
        }
        pub fn mark_death(&mut self) -> io::Result<()> {
            super::absent()
        }
        pub fn verdict(&mut self, _: Duration) -> io::Result<ClientVerdict> {
            super::absent()
        }
        pub fn restart(&mut self) -> io::Result<()> {
            super::absent()
        }
    }
}

pub mod probe {
    use crate::sys::namespace::Namespace;
    use core::net::SocketAddrV4;
    use std::io;

    pub struct ProbePlan {
        pub targets: Vec<SocketAddrV4>,
        pub flows: u32,
        pub interval_ms: u64,
    }
    pub struct ProbeVerdict {
        pub p50_ms: f64,
        pub max_ms: f64,
    }
    pub struct Probe;
    impl Probe {
        pub fn spawn(_: &Namespace, _: &ProbePlan) -> io::Result<Probe> {
            super::absent()
        }
        pub fn start_window(&mut self) -> io::Result<()> {
            super::absent()
        }
        pub fn end_window(&mut self) -> io::Result<ProbeVerdict> {
            super::absent()
        }
    }
}

pub mod watch {
    use crate::sys::namespace::Namespace;
    use core::net::Ipv4Addr;
    use std::io;
    use std::time::Duration;

    pub struct Watcher;
    impl Watcher {
        pub fn start(_: &Namespace, _: &str, _: Vec<Ipv4Addr>) -> io::Result<Watcher> {
            super::absent()
        }
        /// Time of the first announcement at or after `clock` (both CLOCK_REALTIME).
        pub fn first_announcement_after(&self, _: Duration, _: Duration) -> Option<Duration> {
            None
        }
    }
}

pub mod kernel {
    use crate::sys::namespace::Namespace;
    use std::io;

    pub struct Entry;
    pub struct Difference {
        pub missing: u32,
        pub extra: u32,
        pub stale: u32,
        pub examples: Vec<String>,
    }
    pub fn dump(_: &Namespace) -> io::Result<Vec<Entry>> {
        super::absent()
    }
    pub fn compare(_: &[Entry], _: &[Entry]) -> Difference {
        Difference { missing: 0, extra: 0, stale: 0, examples: Vec::new() }
    }
}

pub mod memory {
    use crate::transport::{Limits, Transport, TransportCounters};
    use crate::wire::FrameMeta;
    use std::io;
    use std::os::fd::BorrowedFd;

    pub struct MemoryHub;
    impl MemoryHub {
        pub fn new() -> Self {
            MemoryHub
        }
        pub fn port(&self) -> MemoryTransport {
            MemoryTransport
        }
    }
    pub struct MemoryTransport;
    impl Transport for MemoryTransport {
        fn limits(&self) -> Limits {
            Limits { frame_len: 1480, batch: 64 }
        }
        fn receive(&mut self, _: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
            super::absent()
        }
        fn transmit(&mut self, _: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
            super::absent()
        }
        fn readiness(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn counters(&self) -> TransportCounters {
            TransportCounters::default()
        }
    }
}
