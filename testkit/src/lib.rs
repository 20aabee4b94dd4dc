//! Tests of actors without waiting: a silo whose time a test owns, doubles, and faults.
//!
//! ```
//! use quark::prelude::*;
//! use quark_testkit::TestSilo;
//!
//! #[derive(Actor)]
//! #[actor(idle = "10m")]
//! struct Session {
//!     reminders: u32,
//! }
//!
//! #[methods]
//! impl Session {
//!     #[on_activate]
//!     async fn open(&mut self, cx: &Cx) -> Result<()> {
//!         cx.every(Duration::from_secs(60), |me: &SessionRef| me.remind())?;
//!         Ok(())
//!     }
//!
//!     pub async fn remind(&mut self) {
//!         self.reminders += 1;
//!     }
//!
//!     pub async fn reminders(&self) -> u32 {
//!         self.reminders
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let silo = TestSilo::builder().host::<Session>().start()?;
//! let session = silo.grid().actor::<Session>("anna");
//! assert_eq!(session.reminders().await?, 0);
//!
//! silo.advance(Duration::from_secs(5 * 60)).await;
//! assert_eq!(session.reminders().await?, 5);
//!
//! silo.advance(Duration::from_secs(10 * 60)).await;
//! assert_eq!(silo.grid().census().activations, 0, "nobody called it for ten minutes");
//! # Ok(())
//! # }
//! ```
//!
//! What belongs here: what tests of users and of Quark itself need in order to own time and to stand in for actors.
//! What does not: assertions, actors, and anything that a running silo needs.
//!
//! - [`silo`]: [`TestSilo`], and its time
//! - [`double`]: [`Double`], a stand-in for the actors of a type, with scripted answers and recorded calls
//! - [`faults`]: [`Faults`], panics, delays and errors at the n-th call or activation
//! - [`store_faults`]: [`StoreFaults`], stores that refuse, lose answers, or take their time
//! - [`method`]: naming a method by its path

pub mod double;
pub mod faults;
pub mod method;
pub mod silo;
pub mod store_faults;

pub use double::{Double, Heard};
pub use faults::Faults;
pub use quark::base::VirtualClock;
pub use silo::{TestSilo, TestSiloBuilder};
pub use store_faults::{CommitFault, StoreFaults};
