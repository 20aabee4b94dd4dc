//! The scripts, and how they are called. Each runs alone on its server, so what it does is one step.

use redis::Cmd;

/// One script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    CommitSlot,
    Commit,
    Relayed,
    Forget,
    ReminderPut,
    ReminderMove,
    ReminderDue,
    ReminderNext,
    StreamAppend,
    StreamOpen,
    StreamSeek,
    StreamRead,
    StreamAck,
    StreamLag,
    StreamTrim,
}

/// The scripts' texts, in the order of their names.
const CODE: [&str; 15] = [
    include_str!("scripts/commit_slot.lua"),
    include_str!("scripts/commit.lua"),
    include_str!("scripts/relayed.lua"),
    include_str!("scripts/forget.lua"),
    include_str!("scripts/reminder_put.lua"),
    include_str!("scripts/reminder_move.lua"),
    include_str!("scripts/reminder_due.lua"),
    include_str!("scripts/reminder_next.lua"),
    include_str!("scripts/stream_append.lua"),
    include_str!("scripts/stream_open.lua"),
    include_str!("scripts/stream_seek.lua"),
    include_str!("scripts/stream_read.lua"),
    include_str!("scripts/stream_ack.lua"),
    include_str!("scripts/stream_lag.lua"),
    include_str!("scripts/stream_trim.lua"),
];

/// The scripts by the hashes that Redis calls them by.
pub(super) struct Scripts {
    hashes: [String; CODE.len()],
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { hashes: CODE.map(|code| redis::Script::new(code).get_hash().to_owned()) }
    }

    /// The beginning of a call, to which its keys and then its arguments are added.
    pub(super) fn call(&self, name: Name, keys: usize) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hashes[name as usize]).arg(keys);
        call
    }
}

/// The commands that make a server know all scripts.
pub(super) fn loads() -> impl Iterator<Item = Cmd> {
    CODE.iter().map(|code| {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(code);
        load
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_where_its_script_does() {
        // The last one does only if all before it do.
        assert_eq!(Name::StreamTrim as usize, CODE.len() - 1);
        assert!(CODE[Name::Commit as usize].contains("One commit: all of it"));
        assert!(CODE[Name::StreamAck as usize].contains("XACK"));
    }
}
