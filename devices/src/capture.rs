//! A capture: exactly the files the probes read, in one archive, so that a user's machine can be looked at
//! from afar (`quark inventory --root DIR` on the unpacked files).
//!
//! The archive holds text of `/sys`, `/proc` and `/etc/os-release` and nothing else: no serial numbers, no
//! environment, no process list. It does hold the host name.

use crate::{
    inventory::Inventory,
    probe::{
        self,
        root::{Recorded, Root, RootError},
    },
};
use flate2::{Compression, write::GzEncoder};
use quark_base::ByteSize;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// The most that all captured files may hold together. A machine with 512 CPUs makes some 3 MB.
pub const MAX_TOTAL_BYTES: u64 = 64 << 20;

/// What was captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// How many files and links the archive holds.
    pub files: usize,
    /// Their sizes together, before compression.
    pub bytes: ByteSize,
    /// The inventory these files give. GPU libraries have no part in it: their answers can't be captured.
    pub inventory: Inventory,
}

/// Why there is no capture. Whatever stood at the path before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The archive can't be written. Another path or more space helps.
    #[error("cannot write the capture {}: {cause}", path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The files are larger than any machine's, so something else was read. A retry does not help.
    #[error("the files to capture hold {found}, more than the limit of {}", ByteSize::bytes(MAX_TOTAL_BYTES))]
    TooLarge {
        /// What they hold together.
        found: ByteSize,
    },
    /// The tree to capture from can't be used.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Captures this machine into `path`, a `.tar.gz`.
pub fn capture(path: &Path) -> Result<Captured, CaptureError> {
    capture_root(Root::live(), path)
}

/// Captures a tree that was captured before: what this version of the probes reads of it.
pub fn capture_tree(dir: &Path, path: &Path) -> Result<Captured, CaptureError> {
    capture_root(Root::captured(dir)?, path)
}

fn capture_root(root: Root, path: &Path) -> Result<Captured, CaptureError> {
    let root = root.recording();
    let inventory = probe::tree(&root);
    let recorded = root.recorded();
    let bytes: u64 = recorded
        .values()
        .map(|entry| match entry {
            Recorded::File(content) => content.len() as u64,
            Recorded::Link(_) | Recorded::Dir => 0,
        })
        .sum();
    if bytes > MAX_TOTAL_BYTES {
        return Err(CaptureError::TooLarge { found: ByteSize::bytes(bytes) });
    }
    let failed = |cause| CaptureError::Write { path: path.to_owned(), cause };
    // Written beside the target and renamed: a full disk leaves no half archive under the name asked for.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let written = write(&unfinished, &recorded).and_then(|()| fs::rename(&unfinished, path));
    if let Err(cause) = written {
        // The first failure is the one to tell; a leftover that can't be removed changes nothing.
        let _ = fs::remove_file(&unfinished);
        return Err(failed(cause));
    }
    let files = recorded.values().filter(|entry| **entry != Recorded::Dir).count();
    Ok(Captured { files, bytes: ByteSize::bytes(bytes), inventory })
}

fn write(path: &Path, recorded: &std::collections::BTreeMap<String, Recorded>) -> io::Result<()> {
    let mut archive =
        tar::Builder::new(GzEncoder::new(BufWriter::new(File::create(path)?), Compression::default()));
    for (name, entry) in recorded {
        // Times, owners and modes are fixed, so that equal machines give equal archives.
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match entry {
            Recorded::File(content) => {
                header.set_mode(0o644);
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, content.as_slice())?;
            }
            Recorded::Link(target) => {
                header.set_mode(0o777);
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, name, target)?;
            }
            Recorded::Dir => {
                header.set_mode(0o755);
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{name}/"), io::empty())?;
            }
        }
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
