//! The names under which exporters show what the runtime's reports tell, each with its unit and meaning. Labels are bounded:
//! namespaces, patterns, actor types, methods; never a key.
//!
//! Those of streams are about one subscription ([`SubscriptionReport`](crate::streams::SubscriptionReport)); their labels
//! are its namespace or pattern, and its reader.

/// Items handed over, since the silo started.
pub const STREAM_DELIVERED: &str = "quark_stream_delivered_items_total";
/// Items not handed over, since the silo started; label `cause` as the fields of [`Drops`](crate::streams::Drops).
pub const STREAM_DROPPED: &str = "quark_stream_dropped_items_total";
/// Items published and still to be handed over.
pub const STREAM_LAG: &str = "quark_stream_lag_items";
/// Items that wait in buffers.
pub const STREAM_BUFFER_USED: &str = "quark_stream_buffer_used_items";
/// Items that may wait in buffers.
pub const STREAM_BUFFER_CAPACITY: &str = "quark_stream_buffer_capacity_items";
/// Items of a durable stream that this silo holds and has not acknowledged.
pub const STREAM_IN_FLIGHT: &str = "quark_stream_in_flight_items";
/// Items of a durable stream that this silo has acknowledged.
pub const STREAM_ACKNOWLEDGED: &str = "quark_stream_acknowledged_items_total";
/// Turns for items of a durable stream that did not succeed.
pub const STREAM_FAILED: &str = "quark_stream_failed_attempts_total";
/// Items of a durable stream that the store gave again.
pub const STREAM_REDELIVERED: &str = "quark_stream_redelivered_items_total";
/// Items of a durable stream that became dead letters.
pub const STREAM_DEAD: &str = "quark_stream_dead_items_total";
/// Items that were handed over and were late for their window.
pub const STREAM_LATE: &str = "quark_stream_late_items_total";
