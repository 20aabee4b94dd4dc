//! A proxy in front of a server, which does to a connection what networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Nothing goes through, and nobody hears of it.
    Stall,
    /// The request that holds this goes through, its answer does not, and the connection ends. Then all passes.
    LoseAnswerTo(&'static [u8]),
}

/// A proxy; it ends with its value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<Mutex<watch::Sender<Mode>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let mode = Arc::new(Mutex::new(watch::channel(Mode::Pass).0));
        let of_connections = mode.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                connections.spawn(pass(client, server, of_connections.clone()));
            }
        });
        Self { port, mode, task }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.lock().send_replace(mode);
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode.lock().borrow().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both directions of one connection; the first that ends ends both.
async fn pass(client: TcpStream, server: TcpStream, mode: Arc<Mutex<watch::Sender<Mode>>>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = AtomicBool::new(false);
    tokio::select! {
        () = forward(from_client, to_server, &mode, &asked, false) => (),
        () = forward(from_server, to_client, &mode, &asked, true) => (),
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: &Mutex<watch::Sender<Mode>>,
    asked: &AtomicBool,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let mut current = mode.lock().subscribe();
        let Ok(now) = current.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| mode.clone()) else {
            return;
        };
        if let Mode::LoseAnswerTo(what) = now {
            if answers && asked.load(Ordering::SeqCst) {
                mode.lock().send_replace(Mode::Pass);
                return;
            }
            if !answers && buffer[..length].windows(what.len()).any(|part| part == what) {
                asked.store(true, Ordering::SeqCst);
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
