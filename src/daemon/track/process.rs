//! Whether a process of some name lives, by proc(5).
//!
//! ```text
//!   /proc/812/comm      nginx                    at most 15 bytes; the kernel cuts the rest
//!   /proc/812/cmdline   nginx: master process…   first word, without its path
//! ```
//!
//! Reading all of /proc costs some 10 µs a process, so the one that was found last is looked at first: as long as it lives
//! a look is two small files.

use std::io;

/// Longest name that the kernel keeps: `TASK_COMM_LEN` of linux/sched.h less its terminating zero.
const COMM_MAX: usize = 15;

/// Looks for a process by its name.
#[derive(Debug)]
pub(super) struct Finder {
    name: String,
    last: Option<u32>,
}

impl Finder {
    pub(super) fn new(name: &str) -> Self {
        Finder { name: name.to_owned(), last: None }
    }

    /// A process of that name that is no zombie; the one of the last look as long as it lives.
    ///
    /// # Errors
    /// The operating system's error: /proc cannot be read.
    pub(super) fn find(&mut self) -> io::Result<Option<u32>> {
        if let Some(process) = self.last.filter(|process| self.is_it(*process)) {
            return Ok(Some(process));
        }
        self.last = None;
        for entry in std::fs::read_dir("/proc")? {
            let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.is_it(process) {
                self.last = Some(process);
                break;
            }
        }
        Ok(self.last)
    }

    /// A process that has ended meanwhile has no files, and is none.
    fn is_it(&self, process: u32) -> bool {
        let read = |file| std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        let comm = read("comm");
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        let name = self.name.as_bytes();
        let by_comm = comm == name;
        // A longer name is cut in comm, and a program may call itself something else there.
        let by_command = || first_word(&read("cmdline")) == Some(name);
        let may_be_cut = name.len() > COMM_MAX && comm == &name[..COMM_MAX];
        (by_comm || ((may_be_cut || name.len() <= COMM_MAX) && by_command())) && !is_zombie(&read("stat"))
    }
}

/// The program's name in `cmdline`: the first word, without its path.
fn first_word(cmdline: &[u8]) -> Option<&[u8]> {
    let word = cmdline.split(|byte| *byte == 0).next()?;
    word.rsplit(|byte| *byte == b'/').next()
}

/// State Z or X in `stat`, which comes after the name in brackets.
fn is_zombie(stat: &[u8]) -> bool {
    let end = stat.iter().rposition(|byte| *byte == b')');
    !matches!(end.and_then(|end| stat.get(end + 2)), Some(state) if !b"ZXx".contains(state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn a_process_is_found_by_its_name_and_not_once_it_is_a_zombie() {
        let directory = tempfile::tempdir().unwrap();
        // A name of its own, and longer than the kernel keeps.
        let program = directory.path().join(format!("sleeper-of-a-test-{}", std::process::id()));
        // Copied by a process that has ended: what a fork of this one still holds open for writing cannot be run (ETXTBSY),
        // and other tests fork at the same time.
        let mut install = Command::new("install");
        assert!(install.args(["-m", "755", "/bin/sleep"]).arg(&program).status().unwrap().success());
        let name = program.file_name().unwrap().to_str().unwrap();
        let mut finder = Finder::new(name);
        assert_eq!(finder.find().unwrap(), None);
        let mut command = Command::new(&program);
        command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Killed(command.spawn().unwrap());
        // The kernel gives it its new name, and later makes it a zombie, when it comes to it.
        until_found(&mut finder, Some(child.0.id()));
        assert_eq!(finder.find().unwrap(), Some(child.0.id()));
        child.0.kill().unwrap();
        until_found(&mut finder, None);
    }

    fn until_found(finder: &mut Finder, wanted: Option<u32>) {
        let start = std::time::Instant::now();
        while finder.find().unwrap() != wanted {
            assert!(start.elapsed().as_secs() < 30, "never: {wanted:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Does not outlive a test that fails.
    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn names_are_those_of_comm_and_of_the_first_word() {
        assert_eq!(first_word(b"/usr/sbin/nginx\0-g\0x\0"), Some(b"nginx".as_slice()));
        assert_eq!(first_word(b"nginx: master process /usr/sbin/nginx\0"), Some(b"nginx".as_slice()));
        assert_eq!(first_word(b""), Some(b"".as_slice()));
        assert!(is_zombie(b"812 (a) b) Z 1 2"));
        assert!(!is_zombie(b"812 (a) Z) S 1 2"));
        assert!(is_zombie(b""));
    }
}
