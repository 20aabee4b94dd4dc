//! Stores: what actors, reminders and durable streams are kept in.
//!
//! What belongs here: implementations of the runtime's store ports, and the suite that each of them passes. What does
//! not: what is kept, in which format, and when.
