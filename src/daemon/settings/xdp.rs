//! What `transport = "xdp"` cannot share.
//!
//! The program at an interface takes *all* frames of its multicast group for the sockets of one group; whoever else on this
//! host is a member hears nothing any more. So two groups on one interface need a multicast group each. (The second one
//! then runs on packet sockets: an interface holds one program.)

use super::read::Section;
use super::{Group, TransportKind};

/// One of the two would take the other's frames.
pub(super) fn between_groups(section: &Section<'_, '_>, group: &Group, other: &Group) {
    let takes = group.transport == TransportKind::Xdp || other.transport == TransportKind::Xdp;
    let shared = group.interfaces.iter().find(|name| other.interfaces.contains(name));
    if let Some(name) = shared.filter(|_| takes && group.group == other.group) {
        section.wrong(
            "group",
            format!(
                "transport \"xdp\" takes all frames to {} on \"{name}\", also those of group {}; \
                 give each a multicast group or an interface of its own",
                group.group, other.sync_id
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::settings::Settings;
    use std::path::Path;

    fn problems(first: &str, second: &str) -> String {
        let text = format!("[node]\nid = 1\n[[group]]\nsync_id = 1\n{first}\n[[group]]\nsync_id = 2\n{second}\n");
        Settings::parse(&text, Path::new("x")).err().map_or_else(String::new, |problems| problems.to_string())
    }

    #[test]
    fn two_groups_of_one_multicast_group_do_not_share_an_interface_with_af_xdp() {
        let (xdp, raw) = ("interfaces = [\"eth1\", \"eth2\"]\ntransport = \"xdp\"", "interfaces = [\"eth2\"]");
        let wrong = "group: transport \"xdp\" takes all frames to 224.0.0.81 on \"eth2\", also those of group 1; \
                     give each a multicast group or an interface of its own";
        for (first, second) in [(xdp, raw), (raw, xdp), (xdp, xdp)] {
            let told = problems(first, second);
            let expected = if first == second { wrong.replace("eth2", "eth1") } else { wrong.to_owned() };
            assert!(told.contains(&expected), "{told}");
        }
        assert_eq!(problems(raw, raw), "");
        assert_eq!(problems(xdp, "interfaces = [\"eth3\"]\ntransport = \"xdp\""), "");
        assert_eq!(problems(xdp, &format!("{raw}\ngroup = \"224.0.0.82\"")), "");
    }
}
