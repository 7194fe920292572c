//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which folder of the file system is mounted: not `/` inside a container that shares its host's hierarchy.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: Vec<u8>,
    /// Options of the mount and of its file system, comma-separated.
    pub options: Vec<u8>,
}

impl Mount {
    /// Whether an option is set, such as `ro` or `hidepid=2`.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        self.options.split(|byte| *byte == b',').any(|one| one == option.as_bytes())
    }
}

/// Parses the file; a line that no kernel writes is passed over.
#[must_use]
pub fn parse(content: &[u8]) -> Vec<Mount> {
    content.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let mut fields = line.split(|byte| *byte == b' ');
    let root = path(fields.nth(3)?);
    let point = path(fields.next()?);
    let mut options = fields.next()?.to_vec();
    // Optional fields end with a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?.to_vec();
    if let Some(of_file_system) = fields.nth(1) {
        options.push(b',');
        options.extend_from_slice(of_file_system);
    }
    Some(Mount { root, point, kind, options })
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| octal(after.get(..3)?)).flatten();
        match escaped {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_understood() {
        let text = b"38 31 0:41 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n\
            36 35 98:0 /a\\040b /mnt\\134x ro,noatime - proc proc rw,hidepid=invisible\n\
            nonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, b"cgroup2");
        assert_eq!(mounts[1].root, PathBuf::from("/a b"));
        assert_eq!(mounts[1].point, PathBuf::from("/mnt\\x"));
        assert!(mounts[1].has_option("ro") && mounts[1].has_option("hidepid=invisible"));
        assert!(!mounts[1].has_option("hidepid"));
    }
}
