//! The one door to `/sys`, `/proc` and `/etc`: the live machine's, or a captured tree's.
//!
//! Every file a probe reads goes through [`Root`], so a captured tree answers exactly as the machine did, and
//! nothing of the machine that looks at it leaks in: a link that leads out of the tree is not followed.

use crate::inventory::{CpuSet, Note, Source};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

/// The largest file that is read. `/proc/cpuinfo` takes some 1.5 KB a CPU, so this holds 2,700 CPUs; all
/// other files are a few hundred bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// The most entries of a directory that are looked at; the kernel's own bound is 8,192 CPUs.
pub const MAX_DIR_ENTRIES: usize = 16_384;

/// The most notes that one broken tree can cause; the last says that there were more.
pub const MAX_NOTES: usize = 64;

/// What a recording root has read, by path without the leading slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A file and its content.
    File(Vec<u8>),
    /// A symbolic link and its target.
    Link(PathBuf),
    /// A directory whose being there was asked for.
    Dir,
}

/// Where the probes read.
#[derive(Debug)]
pub struct Root {
    /// `None` is the live machine.
    dir: Option<PathBuf>,
    record: Option<RefCell<BTreeMap<String, Recorded>>>,
    notes: RefCell<Vec<Note>>,
}

/// The directory given as a root can't be one.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It can't be opened. Nothing was read.
    #[error("cannot read {}: {cause}; --root takes a directory that holds captured sys/ and proc/ folders", path.display())]
    Unreadable {
        /// The directory that was given.
        path: PathBuf,
        /// Why it can't be read.
        cause: io::Error,
    },
    /// It is there, with neither `sys` nor `proc` in it.
    #[error("{} holds no sys/ and no proc/ folder; unpack a capture there first (tar xzf FILE.tar.gz -C DIR)", path.display())]
    NoTree {
        /// The directory that was given.
        path: PathBuf,
    },
}

impl Root {
    /// This machine.
    pub fn live() -> Self {
        Self { dir: None, record: None, notes: RefCell::default() }
    }

    /// A captured tree: `dir/sys/…` and `dir/proc/…`.
    pub fn captured(dir: &Path) -> Result<Self, RootError> {
        let canonical = fs::canonicalize(dir)
            .and_then(|path| fs::read_dir(&path).map(|_| path))
            .map_err(|cause| RootError::Unreadable { path: dir.to_owned(), cause })?;
        if !canonical.join("sys").is_dir() && !canonical.join("proc").is_dir() {
            return Err(RootError::NoTree { path: dir.to_owned() });
        }
        Ok(Self { dir: Some(canonical), record: None, notes: RefCell::default() })
    }

    /// The same root, keeping a copy of everything it reads.
    pub fn recording(mut self) -> Self {
        self.record = Some(RefCell::default());
        self
    }

    /// Whether this reads the machine the process runs on.
    pub fn is_live(&self) -> bool {
        self.dir.is_none()
    }

    /// What was read so far; empty unless [`Root::recording`].
    pub fn recorded(&self) -> BTreeMap<String, Recorded> {
        self.record.as_ref().map(|record| record.borrow().clone()).unwrap_or_default()
    }

    /// Takes the notes that reading has left.
    pub fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    /// Adds a note, up to [`MAX_NOTES`].
    pub fn note(&self, note: Note) {
        let mut notes = self.notes.borrow_mut();
        match notes.len() {
            held if held < MAX_NOTES => notes.push(note),
            held if held == MAX_NOTES => {
                notes.push(Note::broken(Source::Sysfs, "more was unreadable; only the first notes are kept"));
            }
            _ => {}
        }
    }

    /// A file's text without the white space around it; `None` when it isn't there, and with a note when it
    /// is there and can't be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.raw(path)?;
        // The device tree ends its texts with a NUL.
        Some(
            String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned(),
        )
    }

    /// A file's bytes; otherwise as [`Root::text`].
    pub fn raw(&self, path: &str) -> Option<Vec<u8>> {
        match self.bytes(path) {
            Ok(bytes) => {
                self.keep(path, || Recorded::File(bytes.clone()));
                Some(bytes)
            }
            Err(cause) => {
                // ENODEV, ENXIO and EINVAL are how sysfs says "not for this device".
                let absent = cause.kind() == io::ErrorKind::NotFound
                    || cause.kind() == io::ErrorKind::NotADirectory
                    || matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EINVAL));
                if !absent {
                    self.note(Note::broken(source_of(path), format!("cannot read {path}: {cause}")));
                }
                None
            }
        }
    }

    /// A file's text if it is there and says something.
    pub fn word(&self, path: &str) -> Option<String> {
        self.text(path).filter(|text| !text.is_empty())
    }

    /// A file that holds one value; a note when it holds something else.
    pub fn value<T: FromStr>(&self, path: &str) -> Option<T> {
        let text = self.text(path)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.garbage(path, &text);
        }
        value
    }

    /// A file in the kernel's list format ("0-3,8").
    pub fn list(&self, path: &str) -> Option<CpuSet> {
        self.value(path)
    }

    /// A set that the kernel gives both as a mask (`mask`) and as a list (`list`). The mask is read first,
    /// since hwloc's dumps hold only that one, and hwloc reads only that one from ours.
    pub fn mask_or_list(&self, mask: &str, list: &str) -> Option<CpuSet> {
        match self.text(mask) {
            Some(text) => {
                let set = parse_mask(&text);
                if set.is_none() {
                    self.garbage(mask, &text);
                }
                set
            }
            None => self.list(list),
        }
    }

    /// The name a link points to (the last part of its target), such as a device's driver.
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.place(path)).ok()?;
        let name = target.file_name()?.to_str()?.to_owned();
        self.keep(path, || Recorded::Link(target));
        Some(name)
    }

    /// The names in a directory, sorted; empty when it isn't there.
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(place) = self.resolve(path) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .take(MAX_DIR_ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// The numbers of a directory's entries called `prefix` and a number, ascending: "cpu" finds cpu0, cpu1
    /// and cpu64, but not cpufreq.
    pub fn numbered(&self, path: &str, prefix: &str) -> CpuSet {
        let ids: CpuSet = self
            .names(path)
            .iter()
            .filter_map(|name| name.strip_prefix(prefix))
            .filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            .filter_map(|rest| rest.parse().ok())
            .collect();
        for id in ids.iter() {
            self.keep(&format!("{path}/{prefix}{id}"), || Recorded::Dir);
        }
        ids
    }

    /// Whether there is such a directory.
    pub fn is_dir(&self, path: &str) -> bool {
        let there = self.resolve(path).is_ok_and(|place| place.is_dir());
        if there {
            self.keep(path, || Recorded::Dir);
        }
        there
    }

    /// Notes that a file's content makes no sense.
    pub fn garbage(&self, path: &str, text: &str) {
        let start: String = text.chars().take(40).collect();
        self.note(Note::broken(source_of(path), format!("{path} makes no sense: {start:?}")));
    }

    fn keep(&self, path: &str, what: impl FnOnce() -> Recorded) {
        if let Some(record) = &self.record {
            record.borrow_mut().insert(path.trim_start_matches('/').to_owned(), what());
        }
    }

    fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        let place = self.resolve(path)?;
        let mut bytes = Vec::new();
        // A capture is the user's file tree: it may hold a FIFO, which would block, or a directory.
        if !fs::metadata(&place)?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        File::open(place)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        Ok(bytes)
    }

    fn place(&self, path: &str) -> PathBuf {
        match &self.dir {
            None => PathBuf::from(path),
            Some(dir) => dir.join(path.trim_start_matches('/')),
        }
    }

    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let place = self.place(path);
        let Some(dir) = &self.dir else { return Ok(place) };
        let real = fs::canonicalize(&place)?;
        if real.starts_with(dir) {
            Ok(real)
        } else {
            Err(io::Error::other("its link leads out of the captured tree"))
        }
    }
}

/// Reads the kernel's masks: groups of eight hexadecimal digits, highest first ("00000000,0000000f").
pub(crate) fn parse_mask(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for (group_at, group) in text.trim().rsplit(',').enumerate() {
        let group = group.strip_prefix("0x").unwrap_or(group);
        if group.is_empty() || group.len() > 8 {
            return None;
        }
        let bits = u32::from_str_radix(group, 16).ok()?;
        let base = u32::try_from(group_at).ok()?.checked_mul(32)?;
        for bit in 0..32 {
            if bits >> bit & 1 == 1 && !set.insert(base.checked_add(bit)?) {
                return None;
            }
        }
    }
    Some(set)
}

fn source_of(path: &str) -> Source {
    if path.starts_with("/sys/fs/cgroup") || path.ends_with("/cgroup") {
        Source::Cgroup
    } else if path.starts_with("/sys") {
        Source::Sysfs
    } else {
        Source::Procfs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_the_right() {
        assert_eq!(parse_mask("3").unwrap().to_string(), "0-1");
        assert_eq!(parse_mask("00000001,00000000,80000001").unwrap().to_string(), "0,31,64");
        assert!(parse_mask("00000000").unwrap().is_empty());
        for text in ["", ",", "xyz", "123456789"] {
            assert!(parse_mask(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_link_out_of_the_tree_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "live").unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("sys")).unwrap();
        fs::write(tree.path().join("sys/inside"), "captured").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), tree.path().join("sys/escape")).unwrap();
        std::os::unix::fs::symlink("inside", tree.path().join("sys/link")).unwrap();
        let root = Root::captured(tree.path()).unwrap();
        assert_eq!(root.text("/sys/link").as_deref(), Some("captured"));
        assert_eq!(root.text("/sys/escape"), None);
        assert_eq!(root.text("/sys/../../../../etc/os-release"), None);
        let notes = root.take_notes();
        assert!(notes[0].text.contains("/sys/escape"), "{notes:?}");
    }

    #[test]
    fn notes_and_files_are_bounded() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("sys")).unwrap();
        File::create(tree.path().join("sys/huge")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        let root = Root::captured(tree.path()).unwrap();
        for _ in 0..MAX_NOTES + 5 {
            assert_eq!(root.text("/sys/huge"), None);
        }
        assert_eq!(root.take_notes().len(), MAX_NOTES + 1);
    }

    #[test]
    fn a_directory_without_a_tree_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Root::captured(empty.path()), Err(RootError::NoTree { .. })));
        assert!(matches!(Root::captured(&empty.path().join("no")), Err(RootError::Unreadable { .. })));
    }
}
