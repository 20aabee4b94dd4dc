//! Where things go: which silo an actor lives on, and which device of a silo it gets.
//!
//! What belongs here: pure functions and values. What does not: membership, the directory, leases, sockets, time.
//! Every choice is a pipeline, candidates -> filters -> director -> choice, and can explain itself.
//!
//! - [`hash`]: the 64-bit hash of keys, the same on every machine; [`ring`]: consistent hashing over silos
//! - [`requirement`]: [`GpuNeed`] and [`CpuNeed`], what `#[actor(gpu(...))]` declares
//! - [`device`]: [`choose_device`], one need against one machine's inventory and ledger
//! - [`silo`]: [`choose_silo`], one actor against the silos of a grid
//! - [`explain`]: [`Explanation`], each candidate's verdict and score, as values and as text

pub mod device;
pub mod explain;
pub mod hash;
pub mod requirement;
pub mod ring;
pub mod silo;

pub use device::{Api, Chosen, DeviceHint, Lack, Lacking, NoDevice, choose_device};
pub use explain::{Candidate, Explanation, Verdict};
pub use requirement::{CpuNeed, GpuNeed, NumaPreference};
pub use ring::{Ring, RingError};
pub use silo::{Director, NoSilo, SiloChoice, SiloInfo, SiloLack, SiloNeed, choose_silo};
