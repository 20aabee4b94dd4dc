//! A connection of the pool while somebody uses it.
//!
//! The pool itself takes back whatever is dropped, waits without end for answers that are still on their way, and
//! keeps the place of such a connection meanwhile. So a connection goes back only when it has answered all that it was
//! asked, and only if it answers once more in bounded time; else it is closed.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// How long the pool may take to see whether a connection that is given back still answers.
const RETURN_MAX: Duration = Duration::from_secs(1);

/// A connection in use. One that is dropped without being given back is closed; the server then rolls back what is open
/// on it.
pub(super) struct Lease {
    /// There until it is dropped or given back.
    connection: Option<PoolConnection<Postgres>>,
}

impl Lease {
    /// Takes a connection that answers, or makes one, in bounded time.
    pub(super) async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: Some(pool.acquire().await?) })
    }

    /// It has answered everything and is within no transaction.
    pub(super) fn give_back(mut self) {
        if let Some(mut connection) = self.connection.take() {
            tokio::spawn(tokio::time::timeout(RETURN_MAX, connection.return_to_pool()));
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Detached, it makes room in the pool at once.
        drop(self.connection.take().map(PoolConnection::detach));
    }
}
