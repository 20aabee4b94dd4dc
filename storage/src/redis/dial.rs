//! How connections are made.

use std::sync::Arc;
use std::time::Duration;

use quark_runtime::store::StoreError;
use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, TlsCertificates, Value,
};
use tokio::sync::Notify;

use super::error::Errors;
use super::scripts;
use super::settings::{Layout, Login, Node, RedisSettings};

/// The oldest Redis that knows all that is used: scripts with flags, `XADD` with half an id, the lag of groups.
const VERSION_MIN: u32 = 7;

/// How many pipelines may wait for their turn to be written to a connection.
const PIPELINES_MAX: usize = 64;

/// Makes connections to the nodes of one store.
pub(super) struct Dialer {
    pub(super) settings: Arc<RedisSettings>,
    pub(super) errors: Errors,
    certificates: Option<TlsCertificates>,
}

impl Dialer {
    /// Reads the file of certificates, if there is one.
    pub(super) async fn new(settings: Arc<RedisSettings>, errors: Errors) -> Result<Self, StoreError> {
        let certificates = match &settings.ca {
            None => None,
            Some(path) => {
                let root_cert = tokio::fs::read(path).await.map_err(|error| {
                    errors.unavailable(&format!("certificates {}: {error}", path.display()))
                })?;
                Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
            }
        };
        if settings.tls {
            // Rustls wants one provider for the process. Whoever has chosen one already is right, so a refusal is
            // no error.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self { settings, errors, certificates })
    }

    /// A connection that stores work over: the server is one that can be used, and knows the scripts. `broken` is
    /// told when it ends.
    pub(super) async fn dial(
        &self,
        node: &Node,
        broken: Arc<Notify>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = self.config(self.settings.response_timeout).set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                broken.notify_one();
            }
            Ok::<_, SendError>(())
        });
        let mut connection = self.connect(node, &self.settings.login, self.settings.database, config).await?;
        self.prepare(&mut connection).await?;
        Ok(connection)
    }

    /// A connection for one caller, whose answers take up to `wait` longer than usual.
    pub(super) async fn dial_plain(
        &self,
        node: &Node,
        wait: Duration,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = self.config(self.settings.response_timeout + wait);
        self.connect(node, &self.settings.login, self.settings.database, config).await
    }

    /// A connection to a sentinel.
    pub(super) async fn dial_sentinel(&self, node: &Node) -> Result<MultiplexedConnection, StoreError> {
        let config = self.config(self.settings.response_timeout);
        self.connect(node, &self.settings.sentinel_login, 0, config).await
    }

    fn config(&self, response_timeout: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(PIPELINES_MAX)
    }

    async fn connect(
        &self,
        node: &Node,
        login: &Login,
        database: i64,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, StoreError> {
        let failed = |error: &redis::RedisError| match self.errors.connecting(error) {
            StoreError::Unavailable { store, cause } => {
                StoreError::Unavailable { store, cause: format!("{node}: {cause}").into() }
            }
            other => other,
        };
        let client = self.client(node, login, database).map_err(|error| failed(&error))?;
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| failed(&error))
    }

    fn client(&self, node: &Node, login: &Login, database: i64) -> redis::RedisResult<redis::Client> {
        let Node { host, port } = node.clone();
        let address = match self.settings.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        // Only the third protocol tells of a connection's end.
        let mut greeting =
            RedisConnectionInfo::default().set_db(database).set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &login.user {
            greeting = greeting.set_username(user);
        }
        if let Some(password) = &login.password {
            greeting = greeting.set_password(password);
        }
        let info = address.into_connection_info()?.set_redis_settings(greeting);
        match &self.certificates {
            Some(certificates) if self.settings.tls => {
                redis::Client::build_with_tls(info, certificates.clone())
            }
            _ => redis::Client::open(info),
        }
    }

    /// Sees whether the server can be used, and gives it the scripts.
    async fn prepare(&self, connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("server").arg("memory").cmd("ROLE");
        scripts::loads().for_each(|load| {
            pipeline.add_command(load);
        });
        let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let answers = answers.map_err(|error| self.errors.unavailable(&error.to_string()))?;
        let mut answers = answers.into_iter();
        self.check_info(answers.next().unwrap_or_default())?;
        self.check_role(answers.next().unwrap_or_default())?;
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(self.errors.server(&error));
            }
        }
        Ok(())
    }

    /// Who may not ask for it is let through: what is missing shows at its first use.
    fn check_info(&self, answer: Value) -> Result<(), StoreError> {
        let text = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
            _ => return Ok(()),
        };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let version = field("redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < VERSION_MIN) {
            let cause = format!("it is Redis {version}; {VERSION_MIN}.0 or later is needed");
            return Err(self.errors.unexpected(&cause));
        }
        let policy = field("maxmemory_policy").unwrap_or_default();
        if field("maxmemory") != Some("0") && policy.starts_with("allkeys") {
            tracing::warn!(
                store = %self.errors.store,
                policy,
                "this Redis drops keys when its memory is full: actors will lose what they committed; \
                 set maxmemory-policy to noeviction"
            );
        }
        Ok(())
    }

    /// What sentinels call the master may have been demoted meanwhile. Who may not ask is let through.
    pub(super) fn check_role(&self, answer: Value) -> Result<(), StoreError> {
        let Layout::Sentinel { .. } = self.settings.layout else { return Ok(()) };
        let Value::Array(fields) = answer else { return Ok(()) };
        match fields.first() {
            Some(Value::BulkString(role)) if role != b"master" => {
                Err(self.errors.unavailable("the sentinels' master is a replica now"))
            }
            _ => Ok(()),
        }
    }
}
