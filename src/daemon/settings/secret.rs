//! The secret of a cluster: which file it stands in, who may read that file, and what its lines say.
//!
//! ```text
//!   # anything behind a '#'
//!   1 5a1f…e3    a number from 0 to 3 and 64 hexadecimal digits: this one seals
//!   0 77c0…19    the others, three at most, only open
//! ```
//!
//! Nothing that is read here is ever shown: a problem names file and line and never quotes them, the buffers are wiped, and
//! before the file is opened the process gives up its right to be dumped. What stays is [`Secret`], which cannot be turned
//! back into what was read.

mod make;

pub use make::{LINE_LEN, line, new_file};

use super::read::{Section, shown};
use super::{Node, Profile, Settings};
use crate::engine::Auth;
use crate::wire::{SECRET_LEN, SECRETS_MAX, Secret};
use nix::unistd::{Gid, Uid, User};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::OnceLock;
use toml::de::DeValue;
use zeroize::{Zeroize, Zeroizing};

/// Largest file in bytes: four secrets, and what somebody wrote about them.
pub const SECRET_FILE_MAX: usize = 4096;
/// Where systemd says that it has put a service's credentials (systemd.exec(5)).
pub const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// What a name of a credential stands behind.
const CREDENTIAL: &str = "credential:";
/// Hexadecimal digits of a secret.
const DIGITS: usize = 2 * SECRET_LEN;
/// Of 32 random bytes about 30 are different; fewer than this once in 10^15.
const DISTINCT_MIN: usize = 16;
/// Who else than its owner may do what with the file: nobody anything.
const OTHERS: u32 = 0o077;
/// The same of a credential. Where the service has an account of its own systemd lets it read by an access list, which
/// shows as the group's right to read.
const OTHERS_OF_CREDENTIALS: u32 = 0o037;

/// Where the secrets stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretFile {
    /// A file, by its absolute path.
    Path(PathBuf),
    /// A credential that systemd has handed to this service.
    Credential(String),
}

impl fmt::Display for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretFile::Path(path) => write!(f, "{}", path.display()),
            SecretFile::Credential(name) => write!(f, "{CREDENTIAL}{name}"),
        }
    }
}

impl Serialize for SecretFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `[node] secret_file` and `auth`, and what was read of the file.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct Sealing {
    /// Where the secrets stand; without it nothing is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub secret_file: Option<SecretFile>,
    /// Whether frames that are not sealed are taken; not there without a file.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "auth_word")]
    #[schemars(with = "Option<String>")]
    pub auth: Option<Auth>,
    /// The secrets: the first seals, the others open. Empty where there is no file, or nobody has read it yet.
    #[serde(skip)]
    pub secrets: Vec<Secret>,
}

impl Sealing {
    /// What an engine is told.
    pub fn auth(&self) -> Auth {
        self.auth.unwrap_or_default()
    }
}

fn auth_word<S: Serializer>(auth: &Option<Auth>, serializer: S) -> Result<S::Ok, S::Error> {
    auth.map(Auth::name).serialize(serializer)
}

/// Who opens the file that a configuration names: [`read`], or nobody where only the configuration's text is looked at.
pub(super) type Opener = fn(&SecretFile) -> Result<Vec<Secret>, Vec<String>>;

/// Reads `secret_file` and `auth`; and the file, by `open`.
pub(super) fn sealing(section: &Section<'_, '_>, open: Opener) -> Sealing {
    const WORDS: &[(&str, Auth)] = &[("off", Auth::Off), ("permissive", Auth::Permissive), ("enforce", Auth::Enforce)];
    let secret_file = section.read("secret_file", None, |found| named(found).map(Some));
    let auth = section.word("auth", Auth::Enforce, WORDS, &[]);
    if section.get("auth").is_some() && section.get("secret_file").is_none() {
        section
            .wrong("auth", "there is no secret to ask for; remove it, or write secret_file = \"/etc/ssyncp/secret\"");
    }
    let Some(secret_file) = secret_file else { return Sealing::default() };
    let secrets = open(&secret_file).unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| section.wrong("secret_file", problem));
        Vec::new()
    });
    Sealing { secret_file: Some(secret_file), auth: Some(auth), secrets }
}

/// The name of a file. It is not shown if it is none: somebody may have written the secret there.
fn named(found: &DeValue<'_>) -> Result<SecretFile, String> {
    let Some(text) = found.as_str() else {
        return Err(format!("{} is no text; write \"/etc/ssyncp/secret\"", shown_kind(found)));
    };
    if let Some(name) = text.strip_prefix(CREDENTIAL) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        return match !name.is_empty() && name.len() <= 255 && name.bytes().all(plain) && !name.starts_with('.') {
            true => Ok(SecretFile::Credential(name.to_owned())),
            false => {
                Err("is no name of a credential (letters, digits, '-', '_', '.'); write \"credential:ssyncp\"".into())
            }
        };
    }
    match text.starts_with('/') {
        true => Ok(SecretFile::Path(text.into())),
        false => {
            Err("is no absolute path; write \"/etc/ssyncp/secret\". The secret itself stands in that file (ssyncp \
                      keygen /etc/ssyncp/secret), and not here"
                .into())
        }
    }
}

/// A value's type: a number may be the secret.
fn shown_kind(found: &DeValue<'_>) -> String {
    match found {
        DeValue::Integer(_) | DeValue::Float(_) => "a number".to_owned(),
        other => shown(other),
    }
}

/// Reads the secrets of a file that only its owner can read, and [forgoes dumps](forgo_dumps).
///
/// # Errors
/// Every problem, as `FILE: what is wrong; its cure` or `FILE:LINE: …`; none of them quotes the file.
pub fn read(file: &SecretFile) -> Result<Vec<Secret>, Vec<String>> {
    parse(file, &read_bytes(file)?)
}

/// Reads what stands in `file`, which is only named in the problems.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &SecretFile, text: &[u8]) -> Result<Vec<Secret>, Vec<String>> {
    lines(text).map_err(|problems| {
        let place = |line: Option<usize>| line.map_or(format!("{file}"), |line| format!("{file}:{line}"));
        problems.into_iter().map(|(line, problem)| format!("{}: {problem}", place(line))).collect()
    })
}

/// From here on this process leaves no core dump, and nobody who is not root can look into it.
pub fn forgo_dumps() {
    // It is refused to no process (prctl(2), PR_SET_DUMPABLE).
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// What stands in a file that only its owner can read; it is wiped when it is dropped.
///
/// # Errors
/// As [`read`], of the file as a whole.
pub fn read_bytes(file: &SecretFile) -> Result<Zeroizing<Vec<u8>>, Vec<String>> {
    forgo_dumps();
    let named = |problem: String| vec![format!("{file}: {problem}")];
    let path = path(file, std::env::var_os(CREDENTIALS).map(PathBuf::from)).map_err(named)?;
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let opened = opened.map_err(|error| named(unopened(&error)))?;
    let metadata = opened.metadata().map_err(|error| named(format!("cannot be read: {error}")))?;
    let problems = unfit(file, &metadata, &owners());
    if !problems.is_empty() {
        return Err(problems.into_iter().flat_map(named).collect());
    }
    contents(opened).map_err(|error| named(format!("cannot be read: {error}")))?.ok_or_else(|| named(too_long()))
}

/// The whole file, in a buffer that never grows; `None` if it is longer than it may be.
fn contents(mut file: File) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_FILE_MAX + 1]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok((length <= SECRET_FILE_MAX).then_some(bytes))
}

fn path(file: &SecretFile, credentials: Option<PathBuf>) -> Result<PathBuf, String> {
    match (file, credentials) {
        (SecretFile::Path(path), _) => Ok(path.clone()),
        (SecretFile::Credential(name), Some(directory)) if directory.is_absolute() => Ok(directory.join(name)),
        (SecretFile::Credential(name), _) => Err(format!(
            "{CREDENTIALS} is not set, because systemd has not started this; write LoadCredential={name}:/etc/ssyncp/secret \
             into the unit, or, to check by hand while the service runs, {CREDENTIALS}=/run/credentials/ssyncp.service \
             ssyncp check"
        )),
    }
}

fn unopened(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "is a symbolic link; name the file that it leads to".to_owned(),
        Some(libc::ENOENT) => {
            "there is no such file; make one with ssyncp keygen FILE, or copy that of the other node".to_owned()
        }
        Some(libc::EACCES) => {
            "may not be read by the user that this runs as; chown it to that user (ssyncp, by the systemd unit)"
                .to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

fn too_long() -> String {
    format!("has more than {SECRET_FILE_MAX} bytes; it holds one to {SECRETS_MAX} lines of ssyncp keygen")
}

/// The daemon's user, and its group, by the unit and the package.
pub const DAEMON_USER: &str = "ssyncp";

/// User and group of [`DAEMON_USER`], if this machine has one. Asked once: a daemon that is held in cannot read who there is.
pub fn daemon_user() -> Option<(Uid, Gid)> {
    static USER: OnceLock<Option<(Uid, Gid)>> = OnceLock::new();
    *USER.get_or_init(|| User::from_name(DAEMON_USER).ok().flatten().map(|user| (user.uid, user.gid)))
}

/// Whose the file may be, beside root's: who runs this; and for root, who does the daemon's housekeeping, the daemon's user.
fn owners() -> Vec<u32> {
    let own = nix::unistd::geteuid();
    let daemon = daemon_user().filter(|_| own.is_root()).map(|(user, _)| user.as_raw());
    [own.as_raw()].into_iter().chain(daemon).collect()
}

/// What keeps a file from holding a secret, whatever stands in it.
fn unfit(file: &SecretFile, metadata: &std::fs::Metadata, owners: &[u32]) -> Vec<String> {
    let kind = metadata.file_type();
    if !kind.is_file() {
        let what = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a FIFO",
            () if kind.is_char_device() || kind.is_block_device() => "a device",
            () => "no file",
        };
        return vec![format!("is {what}; write the path of a file that ssyncp keygen has made")];
    }
    let mut problems = Vec::new();
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let credential = matches!(file, SecretFile::Credential(_));
    let others = if credential { OTHERS_OF_CREDENTIALS } else { OTHERS };
    if mode & others != 0 {
        problems.push(format!("others than its owner may use it (mode {mode:04o}); chmod 600 {}", shell(file)));
    }
    if owner != 0 && !owners.contains(&owner) {
        // The last of them is the daemon's user, where there is one.
        let cure = owners.last().copied().unwrap_or(0);
        problems.push(format!("belongs to user {owner}, who could change it; chown {cure} {}", shell(file)));
    }
    if metadata.len() > SECRET_FILE_MAX as u64 {
        problems.push(too_long());
    }
    problems
}

/// The file as a command takes it.
fn shell(file: &SecretFile) -> String {
    match file {
        SecretFile::Path(path) => format!("'{}'", path.display().to_string().replace('\'', "'\\''")),
        SecretFile::Credential(name) => format!("\"${CREDENTIALS}\"/{name}"),
    }
}

/// A problem, and the line that it is in.
type LineProblem = (Option<usize>, String);

/// Reads the lines. Everything that is decoded on the way is wiped.
fn lines(text: &[u8]) -> Result<Vec<Secret>, Vec<LineProblem>> {
    let mut decoded = Zeroizing::new([[0; SECRET_LEN]; SECRETS_MAX]);
    let mut secrets: Vec<(usize, Secret)> = Vec::with_capacity(SECRETS_MAX);
    let mut problems = Vec::new();
    let mut found = 0;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        found += 1;
        let at = secrets.len();
        if found > SECRETS_MAX {
            problems.push((Some(number), format!("there are more than {SECRETS_MAX} secrets; remove the oldest")));
            break;
        }
        let mut wrong = |problem: String| problems.push((Some(number), problem));
        match read_line(line, &mut decoded[at]) {
            Err(problem) => wrong(problem),
            Ok(id) => {
                let earlier = decoded[..at].iter().position(|other| *other == decoded[at]);
                if let Some((other, _)) = earlier.and_then(|at| secrets.get(at)) {
                    wrong(format!("the same secret stands in line {other}; remove one of them"));
                }
                if let Some((other, _)) = secrets.iter().find(|(_, secret)| secret.id() == id) {
                    wrong(format!(
                        "the number {id} stands in line {other} too; give each secret its own, on all nodes the same"
                    ));
                }
                secrets.extend(Secret::new(id, &decoded[at]).map(|secret| (number, secret)));
            }
        }
    }
    if found == 0 {
        problems.push((None, "holds no secret; ssyncp keygen --add FILE puts one into it".to_owned()));
    }
    match problems.is_empty() {
        true => Ok(secrets.into_iter().map(|(_, secret)| secret).collect()),
        false => Err(problems),
    }
}

/// One line: the number, and the secret into `secret`.
fn read_line(line: &[u8], secret: &mut [u8; SECRET_LEN]) -> Result<u8, String> {
    const MAKE: &str = "make one with ssyncp keygen";
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (Some(id), Some(digits), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("is not a number, a blank and {DIGITS} hexadecimal digits; {MAKE}"));
    };
    let id = match id {
        [digit @ b'0'..=b'3'] => digit - b'0',
        _ => return Err("begins with no number from 0 to 3; write one before the secret, on all nodes the same".into()),
    };
    if digits.len() != DIGITS {
        let length = digits.len();
        return Err(format!("has {length} characters where a secret has {DIGITS} hexadecimal digits; {MAKE}"));
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else {
            return Err(format!("has a character among its {DIGITS} that is no hexadecimal digit; {MAKE}"));
        };
        *byte = high << 4 | low;
    }
    match weakness(secret) {
        Some(weakness) => Err(format!("{weakness}: it can be guessed; {MAKE}")),
        None => Ok(id),
    }
}

/// Why nobody has drawn these bytes at random. Of random ones 1 in 10^13 is refused.
fn weakness(secret: &[u8; SECRET_LEN]) -> Option<&'static str> {
    let mut seen = [false; 256];
    secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let distinct = seen.iter().filter(|seen| **seen).count();
    let step = secret[1].wrapping_sub(secret[0]);
    let counts = secret.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let text = secret.iter().all(|byte| matches!(byte, 0 | b'\t'..=b'\r' | b' '..=b'~'));
    seen.zeroize();
    match () {
        () if counts => Some("its bytes only count"),
        () if distinct < DISTINCT_MIN => Some("most of its bytes are the same"),
        () if text => Some("its bytes are text, as a password's"),
        () => None,
    }
}

/// What is open with these settings, for whoever can send or listen on the sync links.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let Node { sealing, .. } = &settings.node;
    let links = links(settings);
    let Some(auth) = sealing.auth else {
        return vec![format!(
            "no secret: whoever reaches the sync link ({links}) can read every connection, add and remove entries of all \
             nodes' tables, and take or stop the role; a CRC tells accidents only. ssyncp keygen /etc/ssyncp/secret, and \
             [node] secret_file"
        )];
    };
    let mut warnings = Vec::new();
    match auth {
        Auth::Off => warnings.push(format!(
            "auth = \"off\": frames leave in the clear and are taken in the clear, as without a secret: whoever reaches the \
             sync link ({links}) can read and change all tables. Go on with \"permissive\" on every node"
        )),
        Auth::Permissive => warnings.push(format!(
            "auth = \"permissive\": frames that are not sealed are taken, so whoever reaches the sync link ({links}) can \
             change all tables. Go on with \"enforce\" once ssyncp status says on every node that all are ready"
        )),
        Auth::Enforce => {}
    }
    for group in settings.groups.iter().filter(|group| group.profile == Profile::Classic) {
        warnings.push(format!(
            "group {}: profile \"classic\" has no seal: whoever reaches its sync link ({}) can read and change its table, \
             whatever the secret",
            group.sync_id,
            group.interfaces.join(", ")
        ));
    }
    warnings
}

/// The sync links of all groups, once each.
fn links(settings: &Settings) -> String {
    let mut links: Vec<&str> = settings.groups.iter().flat_map(|group| &group.interfaces).map(String::as_str).collect();
    links.sort_unstable();
    links.dedup();
    if links.is_empty() { "none yet".to_owned() } else { links.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ONE: &str = "5a1fc09b7e3386d24417f0aa91cce5037bd86e1240f95b3cb7812a6f0d94e3c8";
    const TWO: &str = "c3d0418f5be92a7610ff86b4e37dc15a2298047ed13b6fa5c8e6905b71f2ad34";

    fn parsed(text: &str) -> Result<Vec<u8>, String> {
        let read = parse(&SecretFile::Path("FILE".into()), text.as_bytes());
        read.map(|secrets| secrets.iter().map(Secret::id).collect()).map_err(|problems| problems.join("\n"))
    }

    #[test]
    fn one_to_four_lines_and_what_stands_behind_a_hash_is_not_read() {
        assert_eq!(parsed(&format!("0 {ONE}")), Ok(vec![0]));
        let text = format!("# of the cluster\n\n 3\t{ONE} # since May\r\n1 {}\n#", TWO.to_uppercase());
        assert_eq!(parsed(&text), Ok(vec![3, 1]));
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::from_str_radix(&ONE[2 * at..2 * at + 2], 16).unwrap());
        let file = SecretFile::Path("FILE".into());
        assert_eq!(parse(&file, format!("2 {ONE}").as_bytes()), Ok(vec![Secret::new(2, &bytes).unwrap()]));
    }

    #[test]
    fn every_problem_has_its_line_and_no_line_is_quoted() {
        let short = &ONE[1..];
        let odd = ONE.replacen('c', "x", 1);
        let text = format!("4 {ONE}\n0 {short}\n{ONE}\n1 {odd}\n");
        insta::assert_snapshot!(parsed(&text).unwrap_err(), @r#"
        FILE:1: begins with no number from 0 to 3; write one before the secret, on all nodes the same
        FILE:2: has 63 characters where a secret has 64 hexadecimal digits; make one with ssyncp keygen
        FILE:3: is not a number, a blank and 64 hexadecimal digits; make one with ssyncp keygen
        FILE:4: has a character among its 64 that is no hexadecimal digit; make one with ssyncp keygen
        "#);
        insta::assert_snapshot!(parsed(&format!("1 {ONE}\n1 {TWO}\n2 {ONE}\n")).unwrap_err(), @r#"
        FILE:2: the number 1 stands in line 1 too; give each secret its own, on all nodes the same
        FILE:3: the same secret stands in line 1; remove one of them
        "#);
        insta::assert_snapshot!(parsed("# nothing\n").unwrap_err(), @"FILE: holds no secret; ssyncp keygen --add FILE puts one into it");
        let five = format!("0 {ONE}\n1 {TWO}\n2 {}\n3 {}\n0 {ONE}\n", ONE.replace("5a", "5b"), ONE.replace("5a", "5c"));
        insta::assert_snapshot!(parsed(&five).unwrap_err(), @"FILE:5: there are more than 4 secrets; remove the oldest");
    }

    #[test]
    fn what_somebody_has_made_up_is_refused() {
        let weak = |bytes: [u8; 32]| weakness(&bytes);
        assert_eq!(weak([7; 32]), Some("its bytes only count"));
        assert_eq!(weak(std::array::from_fn(|at| at as u8)), Some("its bytes only count"));
        assert_eq!(weak(std::array::from_fn(|at| 250_u8.wrapping_sub(3 * at as u8))), Some("its bytes only count"));
        assert_eq!(weak(std::array::from_fn(|at| (at % 15 * 17) as u8)), Some("most of its bytes are the same"));
        let mut password = [0; 32];
        password[..24].copy_from_slice(b"correct horse battery st");
        assert_eq!(weak(password), Some("most of its bytes are the same"));
        assert_eq!(weak(*b"The quick brown fox jumps over 1"), Some("its bytes are text, as a password's"));
        // One byte more than is needed.
        assert_eq!(weak(std::array::from_fn(|at| (at % 16 * 16 + at % 3) as u8)), None);
    }

    #[test]
    fn what_the_kernel_draws_is_strong_enough() {
        for _ in 0..10_000 {
            let mut bytes = [0; 32];
            crate::sys::clock::random(&mut bytes);
            assert_eq!(weakness(&bytes), None);
        }
    }

    /// A file with a secret in a directory of its own.
    fn written(text: &str) -> (tempfile::TempDir, SecretFile, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("it's secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (directory, SecretFile::Path(path.clone()), path)
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_with_the_cure() {
        let (_directory, file, path) = written(&format!("0 {ONE}\n"));
        assert_eq!(read(&file).unwrap().len(), 1);
        for mode in [0o640, 0o604, 0o620, 0o602, 0o601, 0o610, 0o677] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let problems = read(&file).unwrap_err();
            let place = path.display().to_string();
            let cure = place.replace('\'', "'\\''");
            let expected = format!("{place}: others than its owner may use it (mode {mode:04o}); chmod 600 '{cure}'");
            assert_eq!(problems, [expected]);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&file).is_ok());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let (_directory, file, path) = written(&format!("0 {ONE}\n"));
        std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
        let problems = read(&file).unwrap_err();
        assert!(problems[0].contains(": belongs to user 1234, who could change it; chown "), "{problems:?}");
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(unfit(&file, &metadata, &[1234]).is_empty(), "its own user may have it");
        assert!(unfit(&file, &metadata, &[0, 1234]).is_empty(), "root looks at the daemon's");
        let problems = unfit(&file, &metadata, &[0, 998]);
        assert!(problems[0].starts_with("belongs to user 1234, who could change it; chown 998 '/"), "{problems:?}");
    }

    #[test]
    fn what_is_no_plain_file_or_a_long_one_is_refused() {
        let (directory, file, path) = written(&format!("0 {ONE}\n"));
        let refused = |name: &str| read(&SecretFile::Path(directory.path().join(name))).unwrap_err().concat();
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        assert!(refused("link").contains(": is a symbolic link; name the file that it leads to"));
        assert!(refused(".").contains(": is a directory; write the path of"));
        nix::unistd::mkfifo(&directory.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(refused("fifo").contains(": is a FIFO; write the path of"));
        assert!(refused("none").contains(": there is no such file; make one with ssyncp keygen"));
        std::fs::write(&path, format!("0 {ONE}\n{}", "#".repeat(4096 - 67))).unwrap();
        assert!(read(&file).is_ok());
        std::fs::write(&path, format!("0 {ONE}\n{}", "#".repeat(4097 - 67))).unwrap();
        assert!(read(&file).unwrap_err().concat().contains(": has more than 4096 bytes"));
    }

    #[test]
    fn a_credential_lies_where_systemd_says_and_its_group_may_read_it() {
        let (directory, _, path) = written(&format!("0 {ONE}\n"));
        let credential = SecretFile::Credential("it's secret".into());
        assert_eq!(super::path(&credential, Some(directory.path().to_owned())), Ok(path.clone()));
        let unset = super::path(&SecretFile::Credential("ssyncp".into()), None).unwrap_err();
        assert!(unset.starts_with("CREDENTIALS_DIRECTORY is not set") && unset.contains("LoadCredential=ssyncp:/etc"));
        let unfit = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            unfit(&credential, &std::fs::metadata(&path).unwrap(), &owners())
        };
        assert_eq!([0o400, 0o440].map(|mode| unfit(mode).len()), [0, 0]);
        assert_eq!([0o404, 0o460, 0o441].map(|mode| unfit(mode).len()), [1, 1, 1]);
    }

    fn settings(node: &str, more: &str) -> Result<Settings, String> {
        let text = format!("[node]\nid = 1\n{node}\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n{more}");
        Settings::parse(&text, std::path::Path::new("ssyncp.toml")).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_file_is_named_and_frames_are_enforced_unless_it_says_otherwise() {
        let none = settings("", "").unwrap().node.sealing;
        assert_eq!((none.secret_file, none.auth), (None, None));
        for (auth, expected) in
            [("", Auth::Enforce), ("auth = \"permissive\"", Auth::Permissive), ("auth = \"off\"", Auth::Off)]
        {
            let settings = settings(&format!("secret_file = \"/etc/ssyncp/secret\"\n{auth}"), "").unwrap();
            assert_eq!(settings.node.sealing.auth, Some(expected));
            let again = Settings::parse(&settings.to_toml(), std::path::Path::new("again")).unwrap();
            assert_eq!(again, settings);
        }
        let credential = settings("secret_file = \"credential:ssyncp\"", "").unwrap();
        assert_eq!(credential.node.sealing.secret_file, Some(SecretFile::Credential("ssyncp".into())));
    }

    #[test]
    fn a_secret_that_stands_in_the_configuration_is_not_shown() {
        let wrong = |value: &str| settings(&format!("secret_file = {value}"), "").unwrap_err();
        for value in [format!("\"{ONE}\""), format!("\"0 {ONE}\""), format!("\"credential:{ONE}/\""), "1234567".into()]
        {
            let problem = wrong(&value);
            assert!(problem.starts_with("ssyncp.toml:3: secret_file: "), "{problem}");
            assert!(!problem.contains("5a1f") && !problem.contains("1234567"), "{problem}");
        }
        assert_eq!(
            settings("auth = \"enforce\"", "").unwrap_err(),
            "ssyncp.toml:3: auth: there is no secret to ask for; remove it, or write secret_file = \"/etc/ssyncp/secret\""
        );
    }

    #[test]
    fn what_is_open_is_said_at_the_start() {
        let warnings = |node: &str, more: &str| settings(node, more).unwrap().warnings();
        let with = |auth: &str| format!("secret_file = \"/s\"\nauth = \"{auth}\"");
        assert!(
            warnings("", "")[0]
                .starts_with("no secret: whoever reaches the sync link (eth1) can read every connection")
        );
        assert!(warnings(&with("off"), "")[0].starts_with("auth = \"off\": frames leave in the clear"));
        assert!(
            warnings(&with("permissive"), "")[0].starts_with("auth = \"permissive\": frames that are not sealed are")
        );
        assert_eq!(warnings(&with("enforce"), ""), Vec::<String>::new());
        let classic = "[[group]]\nsync_id = 52\ninterfaces = [\"eth2\"]\nprofile = \"classic\"\nsource = \"synthetic\"";
        let warned = warnings(&with("enforce"), classic);
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(
            warned[0].starts_with("group 52: profile \"classic\" has no seal: whoever reaches its sync link (eth2)")
        );
    }
}
