//! The hardware a silo runs on: what there is, how busy it is, and who holds which part of it.
//!
//! Belongs here: the inventory as plain values, the probes that fill it, live pressure samples, the VRAM
//! ledger, GPU contexts and leases. Does not belong here: which actor goes where (`placement`), when to load
//! something early (`predictive`), turns and executors (`runtime`).
//!
//! - [`inventory`]: the plain values; no I/O
//! - `probe`: the only code that touches hardware; `merge`: several views of one card become one device
//! - `render`, `capture`: the table for people, the archive for looking at a machine from afar
//! - `sample`: live pressure; `ledger`, `pool`: VRAM in bytes, granted and given back
//! - `context`, `lease`: an opened GPU, and an actor's share of it

pub mod capture;
pub mod context;
pub mod inventory;
pub mod lease;
pub mod ledger;
pub mod merge;
pub mod pool;
pub mod probe;
pub mod render;
pub mod sample;
