//! What flows beside TCP: UDP of both families, and SCTP.

use super::{CONNECTED_WITHIN, SURVIVED_WITHIN};
use crate::demo::client::ClientVerdict;
use crate::demo::lab::{self, Lab, SERVERS};
use crate::demo::narrator::Narrator;
use crate::demo::probe::{Probe, ProbePlan};
use crate::demo::report::Mix;
use crate::demo::sctp::{Sctp, SctpPlan};
use crate::demo::{DemoError, Doing};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// UDP flows of the mix, over both families.
pub(in crate::demo) const MIX_UDP_FLOWS: u32 = 100;
/// Time between two datagrams of each.
const MIX_UDP_INTERVAL_MS: u64 = 100;
/// SCTP associations of the mix.
pub(in crate::demo) const MIX_ASSOCIATIONS: u16 = 50;
/// Time between two looks at the mix.
const MIX_EVERY: Duration = Duration::from_millis(10);

/// What flows beside TCP.
pub(super) struct MixTraffic {
    udp: Probe,
    sctp: Sctp,
    _server: Sctp,
    /// Since when answers count.
    since: Instant,
}

impl MixTraffic {
    /// Starts servers and clients of it.
    pub(super) fn start(lab: &Lab, targets: &[SocketAddr], narrator: &Narrator) -> Result<Self, DemoError> {
        let server = SctpPlan::Server(SERVERS.into());
        let server = Sctp::spawn(&lab.server, &server).doing("starting the SCTP servers")?;
        let client = SctpPlan::Client { targets: lab::services().into(), associations: MIX_ASSOCIATIONS };
        let sctp = Sctp::spawn(&lab.client, &client).doing("starting the SCTP clients")?;
        let plan = ProbePlan { targets: targets.to_vec(), flows: MIX_UDP_FLOWS, interval_ms: MIX_UDP_INTERVAL_MS };
        let udp = Probe::spawn(&lab.client, &plan).doing("starting the UDP flows")?;
        narrator.say(format_args!(
            "{MIX_UDP_FLOWS} UDP flows and {MIX_ASSOCIATIONS} SCTP associations begin; of TCP and UDP half is IPv6"
        ));
        Ok(MixTraffic { udp, sctp, _server: server, since: Instant::now() })
    }

    /// From now on only what was sent later counts.
    pub(super) fn begin_window(&mut self) -> Result<(), DemoError> {
        self.since = Instant::now();
        self.udp.start_window().doing("starting the window of the UDP flows")?;
        self.sctp.start_window().doing("starting the window of the SCTP associations")
    }

    /// Opens the associations anew, as those of a lost master.
    pub(super) fn restart(&mut self) -> Result<(), DemoError> {
        self.sctp.restart().doing("opening the lost associations anew")
    }

    /// Waits until everything is answered, or until its time is up: UDP flows and SCTP associations that live then.
    fn alive(&mut self, within: Duration) -> Result<(u32, u32), DemoError> {
        loop {
            let udp = self.udp.end_window().doing("asking for the UDP flows")?;
            let sctp = self.sctp.verdict().doing("asking for the SCTP associations")?;
            let all = udp.alive == udp.flows && sctp.alive == sctp.associations;
            if all || self.since.elapsed() > within {
                return Ok((udp.alive, sctp.alive));
            }
            std::thread::sleep(MIX_EVERY);
        }
    }

    /// Before anybody dies, all of it must work.
    pub(super) fn must_be_alive(&mut self) -> Result<(), DemoError> {
        self.begin_window()?;
        match self.alive(CONNECTED_WITHIN)? {
            (MIX_UDP_FLOWS, sctp) if sctp == u32::from(MIX_ASSOCIATIONS) => Ok(()),
            (udp, sctp) => Err(DemoError::NotAlive { udp, sctp, within: CONNECTED_WITHIN }),
        }
    }

    /// What lives on after the death, at the latest when TCP's time is up, too.
    pub(super) fn verdict(&mut self, tcp: &ClientVerdict) -> Result<Mix, DemoError> {
        let (udp_survived, sctp_survived) = self.alive(SURVIVED_WITHIN)?;
        Ok(Mix {
            ipv6_connections: tcp.ipv6_connections,
            ipv6_survived: tcp.ipv6_survived,
            udp_flows: MIX_UDP_FLOWS,
            udp_survived,
            sctp_associations: MIX_ASSOCIATIONS.into(),
            sctp_survived,
        })
    }
}
