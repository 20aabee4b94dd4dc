//! Where a Redis is, and how it is spoken to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::url::{self, StoreUrlError};

/// The port that Redis listens on unless told otherwise.
const PORT: u16 = 6379;
/// The port that sentinels listen on unless told otherwise.
const SENTINEL_PORT: u16 = 26379;

/// One server's host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What answers under an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One server.
    Single(Node),
    /// A cluster; some of its nodes.
    Cluster(Vec<Node>),
    /// A server that sentinels watch, and the name by which they know it.
    Sentinel { sentinels: Vec<Node>, master: String },
}

/// A user's name and password. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// Where a Redis is, and how it is spoken to. Read from an address:
///
/// | address                                        | what answers                                       |
/// |------------------------------------------------|----------------------------------------------------|
/// | `redis://user:password@host:6379/0`            | one server, and one of its databases               |
/// | `redis+cluster://host:7000,host:7001`          | a cluster; one node that answers is enough         |
/// | `redis+sentinel://host:26379,host:26379/name`  | whichever server the sentinels call master `name`  |
///
/// `rediss` in place of `redis` speaks TLS. What may follow after a `?`, joined by `&`:
///
/// - `prefix`: what the names of all keys begin with, so that several grids share a server (default `quark`)
/// - `ca`: a file with the certificates that may sign the server's, in place of the machine's own
/// - `timeout_ms`: how long an answer is waited for
/// - `sentinel_user`, `sentinel_password`: how the sentinels know us
///
/// Neither [`Display`](fmt::Display) nor [`Debug`](fmt::Debug) shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    pub(super) layout: Layout,
    pub(super) login: Login,
    pub(super) sentinel_login: Login,
    pub(super) tls: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) database: i64,
    pub(super) prefix: String,
    pub(super) response_timeout: Duration,
    pub(super) connect_timeout: Duration,
}

/// An address that is right, for those that are not.
const EXAMPLE: &str = "redis://user:password@host:6379/0";
const CLUSTER_EXAMPLE: &str = "redis+cluster://host:7000,host:7001";
const SENTINEL_EXAMPLE: &str = "redis+sentinel://host:26379,host:26379/mymaster";

impl RedisSettings {
    /// An answer that takes longer than this is not waited for. Redis answers in well below a millisecond; the
    /// slowest thing that a healthy one does is to fork for a snapshot, which stops one of tens of gigabytes for
    /// about a second.
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

    /// A connection that takes longer than this is given up: three times the wait of TCP for a lost first packet.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

    /// The scheme that its text begins with.
    fn scheme(&self) -> &'static str {
        match (&self.layout, self.tls) {
            (Layout::Single(_), false) => "redis",
            (Layout::Single(_), true) => "rediss",
            (Layout::Cluster(_), false) => "redis+cluster",
            (Layout::Cluster(_), true) => "rediss+cluster",
            (Layout::Sentinel { .. }, false) => "redis+sentinel",
            (Layout::Sentinel { .. }, true) => "rediss+sentinel",
        }
    }

    /// The nodes that the address names.
    pub(super) fn nodes(&self) -> &[Node] {
        match &self.layout {
            Layout::Single(node) => std::slice::from_ref(node),
            Layout::Cluster(nodes) | Layout::Sentinel { sentinels: nodes, .. } => nodes,
        }
    }

    /// Takes every password out of a text.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let secrets = [&self.login.password, &self.sentinel_login.password];
        secrets
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl fmt::Display for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.nodes().iter().map(Node::to_string).collect();
        write!(f, "{}://{}", self.scheme(), nodes.join(","))?;
        if let Layout::Sentinel { master, .. } = &self.layout {
            write!(f, "/{master}")?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("address", &self.to_string())
            .field("prefix", &self.prefix)
            .field("ca", &self.ca)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// Reads a whole address.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreUrlError> {
        let malformed = |part, expected| StoreUrlError::Malformed { part, expected, example: EXAMPLE };
        let (scheme, rest) = text.split_once("://").ok_or(StoreUrlError::NoScheme)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return Err(StoreUrlError::UnknownScheme(scheme.into())),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may hold an `@` that nobody encoded, a host cannot.
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let mut nodes = Vec::new();
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            nodes.push(node(host, port).ok_or_else(|| malformed("host", "host with or without a port"))?);
        }
        let first = nodes.first().cloned();
        let first = first.ok_or(StoreUrlError::Missing { missing: "host", example: EXAMPLE })?;
        let (layout, database) = match kind {
            "" if nodes.len() > 1 => {
                let (part, expected) =
                    ("host", "single one, as it must be unless it is a cluster or sentinels");
                return Err(StoreUrlError::Malformed { part, expected, example: CLUSTER_EXAMPLE });
            }
            "" => (Layout::Single(first), path),
            "cluster" if !matches!(path, "" | "0") => {
                let (part, expected) = ("database", "0, which is the only one of a cluster");
                return Err(StoreUrlError::Malformed { part, expected, example: CLUSTER_EXAMPLE });
            }
            "cluster" => (Layout::Cluster(nodes), path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    let missing = "name of a master";
                    return Err(StoreUrlError::Missing { missing, example: SENTINEL_EXAMPLE });
                }
                (Layout::Sentinel { sentinels: nodes, master: decode(master)? }, database)
            }
            _ => return Err(StoreUrlError::UnknownScheme(scheme.into())),
        };
        let database = match database {
            "" => 0,
            text => text.parse::<u16>().map_err(|_| malformed("database", "number"))?,
        };
        let mut settings = Self {
            layout,
            login: parse_login(login)?,
            sentinel_login: Login::default(),
            tls,
            ca: None,
            database: i64::from(database),
            prefix: "quark".to_owned(),
            response_timeout: Self::RESPONSE_TIMEOUT,
            connect_timeout: Self::CONNECT_TIMEOUT,
        };
        for (name, value) in url::settings(query) {
            settings.set(name, decode(value)?)?;
        }
        Ok(settings)
    }

    /// Takes in one setting of an address.
    fn set(&mut self, name: &str, value: String) -> Result<(), StoreUrlError> {
        match name {
            "prefix" if value.is_empty() || value.contains(['{', '}']) => {
                let expected = "one or more characters, and none of them a brace";
                return Err(StoreUrlError::Setting { name: "prefix", expected });
            }
            "prefix" => self.prefix = value,
            "ca" => self.ca = Some(PathBuf::from(value)),
            "timeout_ms" => match value.parse() {
                Ok(millis @ 1..) => self.response_timeout = Duration::from_millis(millis),
                _ => {
                    let expected = "a number of milliseconds, from 1";
                    return Err(StoreUrlError::Setting { name: "timeout_ms", expected });
                }
            },
            "sentinel_user" => self.sentinel_login.user = Some(value),
            "sentinel_password" => self.sentinel_login.password = Some(value),
            _ => {
                // What is no word may be a part of a password that nobody encoded.
                let word = self.sentinel_login.password.is_none()
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                let known = "prefix, ca, timeout_ms, sentinel_user, sentinel_password";
                return Err(StoreUrlError::UnknownSetting {
                    name: if word { name } else { "***" }.into(),
                    known,
                });
            }
        }
        Ok(())
    }
}

/// Reads `host:port`, `[v6]:port` or `host`.
fn node(text: &str, default_port: u16) -> Option<Node> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, (!port.is_empty()).then_some(port))
        }
        None => match text.find(':') {
            Some(colon) => (&text[..colon], Some(&text[colon..])),
            None => (text, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) => port.strip_prefix(':')?.parse().ok()?,
    };
    (!host.is_empty() && port != 0).then(|| Node { host: host.to_owned(), port })
}

/// Reads `user:password`, `:password` or `user`.
fn parse_login(text: &str) -> Result<Login, StoreUrlError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = (!user.is_empty()).then(|| decode(user)).transpose()?;
    Ok(Login { user, password: password.map(decode).transpose()? })
}

/// Takes the percent signs out of a part of an address (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, StoreUrlError> {
    let (part, expected) = ("percent sign", "one with two hexadecimal digits after it, as in %25 for itself");
    let wrong = StoreUrlError::Malformed { part, expected, example: EXAMPLE };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let Some((digits, after)) = after.split_at_checked(2) else { return Err(wrong) };
        let byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else { return Err(wrong) };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisSettings, StoreUrlError> {
        RedisSettings::parse(text)
    }

    #[test]
    fn an_address_says_where_the_server_is() {
        let settings = parse("rediss://quark:p%40ss@db.example:6380/2?prefix=one&timeout_ms=250").unwrap();
        assert_eq!(settings.layout, Layout::Single(Node { host: "db.example".into(), port: 6380 }));
        assert_eq!(settings.login.user.as_deref(), Some("quark"));
        assert_eq!(settings.login.password.as_deref(), Some("p@ss"));
        assert_eq!((settings.tls, settings.database, settings.prefix.as_str()), (true, 2, "one"));
        assert_eq!(settings.response_timeout, Duration::from_millis(250));
    }

    #[test]
    fn a_cluster_and_sentinels_are_told_by_their_scheme() {
        let cluster = parse("redis+cluster://a:1,b:2,[::1]:3").unwrap();
        assert_eq!(cluster.to_string(), "redis+cluster://a:1,b:2,[::1]:3");
        let sentinel = parse("redis+sentinel://:secret@a,b:5/mymaster/3").unwrap();
        assert_eq!(sentinel.to_string(), "redis+sentinel://a:26379,b:5/mymaster/3");
        let Layout::Sentinel { sentinels, master } = sentinel.layout else { panic!("no sentinels") };
        assert_eq!((sentinels.len(), master.as_str()), (2, "mymaster"));
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_and_no_secret() {
        for (text, part) in [
            ("redis+cluter://h", "redis+cluter"),
            ("redis://u:s3cret@", "host"),
            ("redis://:s3cret", "host"),
            ("redis://u:s3cret?x@h", "host"),
            ("redis://u:s3cret@h:port", "port"),
            ("redis://u:s3cret@a:1,b:2", "single"),
            ("redis://h/s3cret", "database"),
            ("redis+cluster://h/1", "database"),
            ("redis+sentinel://u:s3cret@h", "master"),
            ("redis://u:s3cret@h?prefx=a", "prefx"),
            ("redis://h?prefix=a{s3cret", "prefix"),
            ("redis://h?timeout_ms=0", "timeout_ms"),
            ("redis://h?timeout_ms=s3cret", "timeout_ms"),
            ("redis://h?s3cret", "unknown setting"),
            ("redis://u:s3cret%2@h", "percent"),
            ("redis://u:%zz@h", "percent"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }

    #[test]
    fn the_rest_of_a_password_with_an_ampersand_in_it_is_not_shown() {
        let error = parse("redis+sentinel://h/m?sentinel_password=half&hidden").unwrap_err().to_string();
        assert!(error.contains("unknown setting") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn no_text_of_an_address_shows_its_passwords() {
        let settings =
            parse("redis+sentinel://u:secret@h/m?sentinel_user=s&sentinel_password=hidden").unwrap();
        for text in [settings.to_string(), format!("{settings:?}")] {
            assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
        }
        assert_eq!(settings.without_secrets("WRONGPASS secret or hidden"), "WRONGPASS *** or ***");
    }
}
