//! The system calls that only an intruder would make, by seccomp: they are answered with EPERM.
//!
//! A list of what is refused, not of what is allowed: the libraries below may come to use another harmless call with any
//! update of the C library, and a balancer that falls silent for that would be worse than what is prevented.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// Refused. In the order of what somebody could want with them.
const REFUSED: &[i64] = &[
    // To run another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // To look into other processes, or to change them.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // To leave the namespace or the tree of files.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // To change the kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Parts of the kernel that are large, that we do not use, and in which holes were found.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
];

/// From here on the calling thread, and what it starts, is answered with EPERM. AF_XDP alone needs bpf(2).
pub(super) fn filter(bpf: bool) -> Result<String, String> {
    let mut refused = REFUSED.to_vec();
    if !bpf {
        refused.push(libc::SYS_bpf);
    }
    let program = compile(&refused).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    Ok(format!("{} are refused", refused.len()))
}

fn compile(refused: &[i64]) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules: BTreeMap<i64, Vec<_>> = refused.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_filtered_runs_no_program_and_all_else_goes_on() {
        let filtered = std::thread::spawn(|| {
            assert_eq!(filter(false).unwrap(), "47 are refused");
            let run = std::process::Command::new("/bin/true").status();
            let namespace = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
            (run.map_err(|error| error.raw_os_error()), namespace, std::fs::read("/proc/self/stat").is_ok())
        });
        let (run, namespace, reads) = filtered.join().unwrap();
        assert_eq!(run.unwrap_err(), Some(libc::EPERM));
        assert_eq!(namespace, Err(nix::errno::Errno::EPERM));
        assert!(reads);
        // The thread alone was filtered.
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    }
}
