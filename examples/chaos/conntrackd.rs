//! The same work done to conntrackd (FTFW), for the figures beside: `--with-conntrackd`.
//!
//! It gets large buffers, and writes straight into the backup's kernel (`DisableExternalCache`), so that the same judge
//! compares the same kernels. It has no roles and claims no equality: the first machine has the traffic throughout, and
//! nobody asks it for a resync, as nobody asks SSYNCP for one.

use super::interrupt::nap;
use super::lab::{Lab, Plan};
use super::report::Outcome;
use super::scenarios::during;
use super::traffic::{Means, Traffic};
use super::verdict::judge_kernels;
use super::{Context, Trouble};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = "conntrackd";
/// Names of the faults, as of [`SCENARIOS`](super::scenarios::SCENARIOS).
pub const FAULTS: [&str; 3] = ["silent", "receiver-kill", "sender-kill"];
/// Time that a daemon gets to be there: it says nothing.
const START: Duration = Duration::from_secs(1);

/// Whether it is installed.
pub fn is_installed() -> bool {
    Command::new(PROGRAM).arg("-v").output().is_ok()
}

/// Its configuration: files beside `files`, and `host` as the last octet on the sync link.
pub fn configuration(files: &Path, host: u32) -> String {
    let file = |suffix: &str| files.with_extension(suffix).display().to_string();
    format!(
        "Sync {{
            Mode FTFW {{
                ResendQueueSize 131072
                ACKWindowSize 300
                DisableExternalCache on
            }}
            Multicast {{
                IPv4_address 225.0.0.50
                Group 3780
                IPv4_interface 10.255.0.{host}
                Interface sync
                SndSocketBuffer 67108864
                RcvSocketBuffer 67108864
                Checksum on
            }}
        }}
        General {{
            HashSize 524288
            HashLimit 4194304
            LogFile off
            Syslog off
            LockFile {}
            UNIX {{
                Path {}
            }}
            NetlinkBufferSize 134217728
            NetlinkBufferSizeMaxGrowth 134217728
            Filter From Userspace {{
                Protocol Accept {{
                    TCP
                    UDP
                }}
            }}
        }}\n",
        file("lock"),
        file("ctl"),
    )
}

/// Runs one of [`FAULTS`].
///
/// # Errors
/// [`Trouble`].
pub fn run(context: &Context, fault: &str) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan { program: PROGRAM.into(), conntrackd: true, ..Plan::new(context) })?;
    for node in &mut lab.nodes {
        node.start()?;
    }
    nap(START)?;
    let (rate, time) = match fault {
        "silent" => context.scale((20_000, 10), (5_000, 2)),
        _ => context.scale((7_500, 2), (2_000, 1)),
    };
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate);
    let (tally, returned) = during(&mut lab, 0, &traffic, |lab| {
        if fault == "silent" {
            nap(Duration::from_secs(1))?;
            lab.lose_everywhere(1000)?;
            nap(time)?;
            return lab.lose_everywhere(0);
        }
        let killed = usize::from(fault == "receiver-kill");
        nap(time)?;
        lab.nodes[killed].kill()?;
        nap(time)?;
        // It leaves its socket and its lock behind.
        lab.nodes[killed].start()
    })?;
    let start = Instant::now();
    let verdict = judge_kernels(&lab, returned)?;
    let outcome = Outcome::new(verdict, tally, Means::Packets);
    Ok(Outcome { name: fault.into(), what: PROGRAM.into(), seconds: start.elapsed().as_secs_f64(), ..outcome })
}
