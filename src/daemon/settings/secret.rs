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

use super::read::{Section, shown};
use super::{Node, Profile, Settings};
use crate::engine::Auth;
use crate::wire::{SECRET_LEN, SECRETS_MAX, Secret};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
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

/// Reads the secrets of a file that only its owner can read. From here on this process leaves no core dump, and nobody who
/// is not root can look into it.
///
/// # Errors
/// Every problem, as `FILE: what is wrong; its cure` or `FILE:LINE: …`; none of them quotes the file.
pub fn read(file: &SecretFile) -> Result<Vec<Secret>, Vec<String>> {
    let bytes = read_bytes(file)?;
    parse(&bytes).map_err(|problems| {
        let place = |line: Option<usize>| line.map_or(format!("{file}"), |line| format!("{file}:{line}"));
        problems.into_iter().map(|(line, problem)| format!("{}: {problem}", place(line))).collect()
    })
}

/// What stands in a file that only its owner can read; it is wiped when it is dropped.
///
/// # Errors
/// As [`read`], of the file as a whole.
pub fn read_bytes(file: &SecretFile) -> Result<Zeroizing<Vec<u8>>, Vec<String>> {
    // It is refused to no process (prctl(2)).
    let _ = nix::sys::prctl::set_dumpable(false);
    let named = |problem: String| vec![format!("{file}: {problem}")];
    let path = path(file, std::env::var_os(CREDENTIALS).map(PathBuf::from)).map_err(named)?;
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let opened = opened.map_err(|error| named(unopened(&error)))?;
    let metadata = opened.metadata().map_err(|error| named(format!("cannot be read: {error}")))?;
    let problems = unfit(file, &metadata, nix::unistd::geteuid().as_raw());
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
        _ => format!("cannot be read: {error}"),
    }
}

fn too_long() -> String {
    format!("has more than {SECRET_FILE_MAX} bytes; it holds one to {SECRETS_MAX} lines of ssyncp keygen")
}

/// What keeps a file from holding a secret, whatever stands in it.
fn unfit(file: &SecretFile, metadata: &std::fs::Metadata, own: u32) -> Vec<String> {
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
    if owner != 0 && owner != own {
        problems.push(format!("belongs to user {owner}, who could change it; chown {own} {}", shell(file)));
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
fn parse(text: &[u8]) -> Result<Vec<Secret>, Vec<LineProblem>> {
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
