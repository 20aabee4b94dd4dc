//! Redis servers for tests: each on a free port of loopback, in a folder of its own, ended with its value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How often a server is asked whether it is there before the test gives up: half a minute.
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
    child: Child,
    pub(crate) port: u16,
    program: &'static str,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Server {
    /// A server with these settings besides those that all have.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::start_on(free_port(), settings).await
    }

    pub(crate) async fn start_on(port: u16, settings: &[&str]) -> Self {
        let mut all = vec!["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""];
        all.extend_from_slice(settings);
        let server = Self::spawn(port, "redis-server", None, &all);
        server.wait_until_it_answers().await;
        server
    }

    /// A sentinel that watches a master.
    pub(crate) async fn start_sentinel(config: impl FnOnce(u16) -> String) -> Self {
        let port = free_port();
        let server = Self::spawn(port, "redis-server", Some(config(port)), &["--sentinel"]);
        server.wait_until_it_answers().await;
        server
    }

    fn spawn(port: u16, program: &'static str, config: Option<String>, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = Vec::new();
        if let Some(config) = config {
            let file = folder.path().join("redis.conf");
            std::fs::write(&file, config).expect("a config file");
            arguments.push(file.display().to_string());
        }
        // Settings of the test go last, so that they win.
        let port_text = port.to_string();
        let common = ["--port", &port_text, "--bind", "127.0.0.1", "--dir"];
        arguments.extend(common.map(str::to_owned));
        arguments.push(folder.path().display().to_string());
        arguments.extend(settings.iter().map(|&setting| setting.to_owned()));
        let child = run(program, &arguments, folder.path());
        Self { child, port, program, arguments, folder }
    }

    async fn wait_until_it_answers(&self) {
        let port = self.port;
        let answers = move || async move { std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() };
        until("the server answers", answers).await;
    }

    /// As a machine that loses power would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process that can be killed");
        self.child.wait().expect("a process that ended");
    }

    /// Once more, with what it had.
    pub(crate) async fn restart(&mut self) {
        self.child = run(self.program, &self.arguments, self.folder.path());
        self.wait_until_it_answers().await;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command as an administrator would.
    pub(crate) async fn tell(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        tell(&self.url(), command).await
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

fn run(program: &str, arguments: &[String], folder: &Path) -> Child {
    let log =
        std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(log).spawn();
    child.unwrap_or_else(|error| {
        panic!("{program} cannot be started ({error}); install it: apt-get install redis-server")
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
