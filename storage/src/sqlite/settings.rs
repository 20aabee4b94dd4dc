//! Where a SQLite store is, and how it is opened.

use std::fmt;
use std::path::PathBuf;

use quark_base::ByteSize;

use crate::url::{self, StoreUrlError};

const EXAMPLE: &str = "sqlite://folder/file.db";

/// Where a SQLite store is: `sqlite://folder/file.db`, or `sqlite:///folder/file.db` for an absolute path. The path
/// stands as it is, without percent signs for special characters. What may follow after a `?`, joined by `&`:
///
/// - `create=false`: the file must be there (default: it is made)
/// - `read_only=true`: nothing is written, not even missing tables
/// - `max_size=1GiB`: the largest that the file may become; beyond it the store is full
/// - `check=false`: the file is not looked through for damage when it is opened, which takes about a second a gigabyte
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    pub(super) path: PathBuf,
    pub(super) create: bool,
    pub(super) read_only: bool,
    pub(super) max_size: Option<ByteSize>,
    pub(super) check: bool,
}

impl SqliteSettings {
    /// Reads what follows `sqlite://`.
    pub(crate) fn parse(rest: &str) -> Result<Self, StoreUrlError> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.is_empty() {
            return Err(StoreUrlError::Missing { missing: "file", example: EXAMPLE });
        }
        let mut settings =
            Self { path: path.into(), create: true, read_only: false, max_size: None, check: true };
        for (name, value) in url::settings(query) {
            match name {
                "create" => settings.create = switch("create", value)?,
                "read_only" => settings.read_only = switch("read_only", value)?,
                "check" => settings.check = switch("check", value)?,
                "max_size" => {
                    let wrong =
                        |_| StoreUrlError::Setting { name: "max_size", expected: "a size, such as 1GiB" };
                    settings.max_size = Some(value.parse().map_err(wrong)?);
                }
                _ => {
                    let known = "create, read_only, max_size, check";
                    return Err(StoreUrlError::UnknownSetting { name: name.into(), known });
                }
            }
        }
        Ok(settings)
    }
}

fn switch(name: &'static str, value: &str) -> Result<bool, StoreUrlError> {
    value.parse().map_err(|_| StoreUrlError::Setting { name, expected: "true or false" })
}

impl fmt::Display for SqliteSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.path.display())
    }
}
