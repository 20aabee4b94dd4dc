//! Redis servers of a test's own, which it may stop, kill and start again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quark_servers::local;
use tempfile::TempDir;

/// How often something is looked at before the test gives up: half a minute.
const TRIES: u32 = 3000;
const PAUSE: Duration = Duration::from_millis(10);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits until `holds` is true.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..TRIES {
        if holds().await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("not even after half a minute: {what}");
}

/// A running server.
pub(crate) struct Server {
    server: quark_servers::Server,
    pub(crate) port: u16,
}

impl Server {
    /// A server with these settings besides those that all have.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut all = vec!["--appendonly", "yes", "--appendfsync", "everysec"];
        all.extend_from_slice(settings);
        let mut server = local::redis(&all).unwrap_or_else(|error| panic!("{error}"));
        let port = server.process().expect("a process of ours").port();
        Self { server, port }
    }

    fn process(&mut self) -> &mut local::Process {
        self.server.process().expect("a process of ours")
    }

    /// As a machine that loses power would.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }

    /// Once more, with what it had.
    pub(crate) fn restart(&mut self) {
        self.process().start().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes its folder away.
    pub(crate) fn remove_folder(&mut self) {
        std::fs::remove_dir_all(self.process().folder()).expect("a folder that can be removed");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command as an administrator would.
    pub(crate) async fn tell(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        tell(&self.url(), command).await
    }
}

/// A running sentinel.
pub(crate) struct Sentinel {
    child: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Sentinel {
    /// One with this configuration, which it writes to as well.
    pub(crate) async fn start(config: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n{config}")).expect("a file");
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel").current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.expect("redis-server; install it: apt-get install redis-server");
        let answers = move || async move { std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() };
        until("the sentinel answers", answers).await;
        Self { child, port, _folder: folder }
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) async fn tell(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        tell(&format!("redis://127.0.0.1:{}", self.port), command).await
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends one command to a server.
pub(crate) async fn tell(url: &str, command: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = redis::Client::open(url)?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut words = redis::cmd(command[0]);
    words.arg(&command[1..]);
    words.query_async(&mut connection).await
}
