//! A TCP proxy that does what bad networks do.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the proxy does with what comes from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Pass,
    /// New connections end at once.
    Refuse,
    /// Nothing of what a client says passes any more, and no connection ends.
    Stall,
    /// From a client's message with these bytes on, nothing of what it says passes, and its connection does not end.
    StallAt(&'static str),
    /// A client's message with these bytes does not pass, and its connection ends.
    CutBefore(&'static str),
    /// A client's message with these bytes passes, the server answers, the answer does not pass and the connection
    /// ends.
    CutAfter(&'static str),
}

pub(crate) struct Proxy {
    port: u16,
    mode: Arc<Mutex<Mode>>,
    stalled: Arc<Notify>,
}

impl Proxy {
    /// In front of a port of the loopback, on the present runtime.
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (mode, stalled) = (Arc::new(Mutex::new(Mode::Pass)), Arc::new(Notify::new()));
        let (of_task, heard) = (mode.clone(), stalled.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *of_task.lock() != Mode::Refuse {
                    tokio::spawn(pass(client, server, of_task.clone(), heard.clone()));
                }
            }
        });
        Self { port, mode, stalled }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Until a client's message was stalled by [`Mode::StallAt`].
    pub(crate) async fn stalled(&self) {
        self.stalled.notified().await;
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }
}

/// Passes bytes in both directions until one side ends or the mode says so.
async fn pass(
    mut client: TcpStream,
    server: u16,
    mode: Arc<Mutex<Mode>>,
    stalled: Arc<Notify>,
) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let message = &asked[..read.ok().filter(|read| *read > 0)?];
                let has = |text: &str| message.windows(text.len()).any(|part| part == text.as_bytes());
                let mode = *mode.lock();
                match mode {
                    Mode::Stall => std::future::pending().await,
                    Mode::StallAt(text) if has(text) => {
                        stalled.notify_one();
                        std::future::pending().await
                    }
                    Mode::CutBefore(text) if has(text) => return None,
                    Mode::CutAfter(text) if has(text) => {
                        server.write_all(message).await.ok()?;
                        // Once it has answered, it has done it.
                        let _answer = server.read(&mut answered).await.ok()?;
                        return None;
                    }
                    _ => server.write_all(message).await.ok()?,
                }
            }
            read = server.read(&mut answered) => {
                let message = &answered[..read.ok().filter(|read| *read > 0)?];
                client.write_all(message).await.ok()?;
            }
        }
    }
}
