//! Where a PostgreSQL store is, and how it is spoken to.

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::url::{StoreUrlError, settings};

const EXAMPLE: &str = "postgres://user:password@host:5432/database";
/// How TLS is used: <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS>.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Where a PostgreSQL store is: `postgres://user:password@host:5432/database`, with percent signs for special
/// characters. What may follow after a `?`, joined by `&`:
///
/// - `sslmode`: `disable`, `allow`, `prefer` (the default), `require`, `verify-ca` or `verify-full`
/// - `sslrootcert`, `sslcert`, `sslkey`: files with certificates and our key
/// - `schema`: where the tables are, so that several grids share a database (default `quark`; lower-case letters,
///   digits and underscores)
/// - `pool`: the most connections (default 12)
/// - `timeout_ms`: how long an answer is waited for (default 10,000)
/// - `user`, `password`, `application_name`: as their names say
///
/// Neither [`Display`](fmt::Display) nor [`Debug`](fmt::Debug) shows a password.
#[derive(Clone)]
pub struct PostgresSettings {
    /// The address as it was given, secrets included: what tells two settings apart.
    text: Box<str>,
    shown: Box<str>,
    pub(super) options: PgConnectOptions,
    pub(super) schema: Box<str>,
    pub(super) pool: u32,
    pub(super) timeout: Duration,
}

impl PostgresSettings {
    /// Connections of one silo unless told otherwise: those that write, and as many again that read. A PostgreSQL lets
    /// a hundred in by default, so several silos fit.
    pub const POOL: u32 = 12;

    /// How long an answer is waited for unless told otherwise. The slowest that a healthy PostgreSQL does is a
    /// checkpoint on a slow disk, which can hold a commit up for seconds.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Reads a whole address.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreUrlError> {
        let malformed = |part, expected| StoreUrlError::Malformed { part, expected, example: EXAMPLE };
        let missing = |missing| StoreUrlError::Missing { missing, example: EXAMPLE };
        let mut url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => missing("host"),
            url::ParseError::InvalidPort => malformed("port", "number"),
            _ => malformed("user, password, host or port", "text that fits there"),
        })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(missing("host"));
        }
        if url.path().len() < 2 {
            return Err(missing("database"));
        }
        let (mut schema, mut pool, mut timeout): (Box<str>, _, _) =
            ("quark".into(), Self::POOL, Self::TIMEOUT);
        let mut passed_on = Vec::new();
        for (name, value) in settings(url.query().unwrap_or("")) {
            match name {
                "schema" if is_name(value) => schema = value.into(),
                "schema" => {
                    let expected =
                        "up to 63 lower-case letters, digits and underscores, not beginning with a digit";
                    return Err(StoreUrlError::Setting { name: "schema", expected });
                }
                "pool" => {
                    let expected = "a number from 2";
                    pool = value
                        .parse()
                        .ok()
                        .filter(|pool| *pool >= 2)
                        .ok_or(StoreUrlError::Setting { name: "pool", expected })?;
                }
                "timeout_ms" => {
                    let expected = "a number of milliseconds, from 1";
                    let millis = value.parse().ok().filter(|millis| *millis >= 1);
                    let millis = millis.ok_or(StoreUrlError::Setting { name: "timeout_ms", expected })?;
                    timeout = Duration::from_millis(millis);
                }
                "sslmode" if !SSL_MODES.contains(&value) => {
                    let expected = "disable, allow, prefer, require, verify-ca or verify-full";
                    return Err(StoreUrlError::Setting { name: "sslmode", expected });
                }
                "sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "user" | "password"
                | "application_name" => {
                    passed_on.push(format!("{name}={value}"));
                }
                // It may be the rest of a password with an `&` in it, which nobody is to read in a log.
                _ if passed_on.iter().any(|setting| setting.starts_with("password=")) => {
                    return Err(malformed("password", "text with percent signs for special characters"));
                }
                _ => {
                    let known = "sslmode, sslrootcert, sslcert, sslkey, schema, pool, timeout_ms, user, password, \
                                 application_name";
                    return Err(StoreUrlError::UnknownSetting { name: name.into(), known });
                }
            }
        }
        url.set_query((!passed_on.is_empty()).then(|| passed_on.join("&")).as_deref());
        let options = PgConnectOptions::from_url(&url).map_err(|_| {
            malformed("user, password or database", "text with percent signs for special characters")
        })?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let shown = format!("postgres://{}{port}{}", url.host_str().unwrap_or_default(), url.path()).into();
        Ok(Self {
            text: text.into(),
            shown,
            options: options.disable_statement_logging(),
            schema,
            pool,
            timeout,
        })
    }
}

/// Whether it can be a schema's name without quotes.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&text.len()) && text.bytes().all(is_part) && !text.as_bytes()[0].is_ascii_digit()
}

impl PartialEq for PostgresSettings {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PostgresSettings {}

impl fmt::Display for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, pool, timeout, .. } = self;
        f.debug_struct("PostgresSettings")
            .field("address", &self.shown)
            .field("schema", schema)
            .field("pool", pool)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}
