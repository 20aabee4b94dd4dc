//! Where a Redis is, and how it is spoken to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The port that Redis listens on unless told otherwise.
const PORT: u16 = 6379;
/// The port that sentinels listen on unless told otherwise.
const SENTINEL_PORT: u16 = 26379;

/// One server's host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
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

/// Why a text is no address of a Redis. It holds no part of the address that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisUrlError {
    /// It does not begin as one.
    #[error(
        "no address of a Redis; write `redis://host:6379`, `redis+cluster://host:7000,host:7001` or \
         `redis+sentinel://host:26379/master`, with `rediss` for TLS"
    )]
    Scheme,
    /// It names no server.
    #[error("no host; write `redis://host:6379`")]
    NoHost,
    /// It names several servers where one is meant.
    #[error("several hosts; write `redis+cluster://…` or `redis+sentinel://…` if that is meant")]
    ManyHosts,
    /// A host and port cannot be read.
    #[error("a host and port cannot be read; write `redis://host:6379`, and `%3F` for a `?` in a password")]
    Host,
    /// What follows the first slash is no number of a database.
    #[error("the database is no number; write it as in `redis://host:6379/0`")]
    Database,
    /// A cluster has only one database.
    #[error("a cluster has database 0 only, not {0}")]
    ClusterDatabase(i64),
    /// The sentinels need to be asked for a master.
    #[error("no name of a master; write `redis+sentinel://host:26379/mymaster`")]
    NoMaster,
    /// A setting that nobody knows.
    #[error("unknown setting {0}; there are prefix, ca, timeout_ms, sentinel_user and sentinel_password")]
    UnknownSetting(String),
    /// A setting with a value that it cannot have.
    #[error("setting {setting} is not what it takes: {expected}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A percent sign is not followed by two hexadecimal digits, or they are no UTF-8.
    #[error("a percent sign is not followed by two hexadecimal digits; write `%25` for the sign itself")]
    Percent,
}

impl RedisSettings {
    /// An answer that takes longer than this is not waited for. Redis answers in well below a millisecond; the
    /// slowest thing that a healthy one does is to fork for a snapshot, which stops one of tens of gigabytes for
    /// about a second.
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

    /// A connection that takes longer than this is given up: three times the wait of TCP for a lost first packet.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

    /// How long an answer is waited for.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How long a connection may take.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

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

impl FromStr for RedisSettings {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may hold an `@` that nobody encoded, a host cannot.
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let mut nodes = Vec::new();
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            nodes.push(node(host, port)?);
        }
        let first = nodes.first().cloned().ok_or(RedisUrlError::NoHost)?;
        let (layout, database) = match kind {
            "" if nodes.len() > 1 => return Err(RedisUrlError::ManyHosts),
            "" => (Layout::Single(first), path),
            "cluster" => (Layout::Cluster(nodes), path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(RedisUrlError::NoMaster);
                }
                (Layout::Sentinel { sentinels: nodes, master: decode(master)? }, database)
            }
            _ => return Err(RedisUrlError::Scheme),
        };
        let database = match database {
            "" => 0,
            text => text.parse::<u16>().map(i64::from).map_err(|_| RedisUrlError::Database)?,
        };
        if database != 0 && matches!(layout, Layout::Cluster(_)) {
            return Err(RedisUrlError::ClusterDatabase(database));
        }
        let mut settings = Self {
            layout,
            login: parse_login(login)?,
            sentinel_login: Login::default(),
            tls,
            ca: None,
            database,
            prefix: "quark".to_owned(),
            response_timeout: Self::RESPONSE_TIMEOUT,
            connect_timeout: Self::CONNECT_TIMEOUT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            settings.set(name, decode(value)?)?;
        }
        Ok(settings)
    }
}

impl RedisSettings {
    /// Takes in one setting of an address.
    fn set(&mut self, name: &str, value: String) -> Result<(), RedisUrlError> {
        match name {
            "prefix" if value.is_empty() || value.contains(['{', '}']) => {
                let expected = "one or more characters, and none of them a brace";
                return Err(RedisUrlError::Setting { setting: "prefix", expected });
            }
            "prefix" => self.prefix = value,
            "ca" => self.ca = Some(PathBuf::from(value)),
            "timeout_ms" => match value.parse() {
                Ok(millis @ 1..) => self.response_timeout = Duration::from_millis(millis),
                _ => {
                    let expected = "a number of milliseconds, from 1";
                    return Err(RedisUrlError::Setting { setting: "timeout_ms", expected });
                }
            },
            "sentinel_user" => self.sentinel_login.user = Some(value),
            "sentinel_password" => self.sentinel_login.password = Some(value),
            // What is no word may be a part of a password that nobody encoded.
            _ if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
                return Err(RedisUrlError::UnknownSetting(name.to_owned()));
            }
            _ => return Err(RedisUrlError::UnknownSetting("***".to_owned())),
        }
        Ok(())
    }
}

/// Reads `host:port`, `[v6]:port` or `host`.
fn node(text: &str, default_port: u16) -> Result<Node, RedisUrlError> {
    let wrong = || RedisUrlError::Host;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, (!port.is_empty()).then_some(port))
        }
        None => match text.find(':') {
            Some(colon) => (&text[..colon], Some(&text[colon..])),
            None => (text, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?,
    };
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Node { host: host.to_owned(), port })
}

/// Reads `user:password`, `:password` or `user`.
fn parse_login(text: &str) -> Result<Login, RedisUrlError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = (!user.is_empty()).then(|| decode(user)).transpose()?;
    Ok(Login { user, password: password.map(decode).transpose()? })
}

/// Takes the percent signs out of a part of an address (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, RedisUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or(RedisUrlError::Percent)?;
        let digits = std::str::from_utf8(digits).map_err(|_| RedisUrlError::Percent)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| RedisUrlError::Percent)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| RedisUrlError::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisSettings, RedisUrlError> {
        text.parse()
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
        let wrong = [
            ("postgres://u:secret@h/x", RedisUrlError::Scheme),
            ("redis+cluter://h", RedisUrlError::Scheme),
            ("redis://u:secret@", RedisUrlError::NoHost),
            ("redis://u:secret@a:1,b:2", RedisUrlError::ManyHosts),
            ("redis://u:secret@h:port", RedisUrlError::Host),
            ("redis://h/one", RedisUrlError::Database),
            ("redis+cluster://h/1", RedisUrlError::ClusterDatabase(1)),
            ("redis+sentinel://u:secret@h", RedisUrlError::NoMaster),
            ("redis://u:secret@h?prefx=a", RedisUrlError::UnknownSetting("prefx".into())),
            ("redis://h?se1=1&secret", RedisUrlError::UnknownSetting("***".into())),
            ("redis://:secret", RedisUrlError::Host),
            ("redis://u:secret?x@h", RedisUrlError::Host),
            ("redis://u:%zz@h", RedisUrlError::Percent),
            ("redis://u:secret%2@h", RedisUrlError::Percent),
        ];
        for (text, expected) in wrong {
            let error = parse(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for text in ["redis://h?prefix=a{b", "redis://h?timeout_ms=0", "redis://h?timeout_ms=soon"] {
            assert!(matches!(parse(text), Err(RedisUrlError::Setting { .. })), "{text}");
        }
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
