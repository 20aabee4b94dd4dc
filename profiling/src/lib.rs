//! What a program tells about its own run: latencies, and what each device was used for.
//!
//! What does not belong here: measuring hardware (that is `devices`' live samples), deciding anything by what
//! was measured, and drawing beyond a text table.
//!
//! - [`latency`]: a histogram of durations, and its summary with percentiles
//! - [`device_report`]: per device, the work done on it and the memory leased of it; its table

pub mod device_report;
pub mod latency;

pub use device_report::{DeviceMeter, DeviceReport};
pub use latency::{LatencyHistogram, LatencySummary};
