//! What every store must do, as tests.
//!
//! Each function of the parts is one sentence of the ports' promises. [`conformance_tests!`](crate::conformance_tests)
//! makes a test of each of them for one implementation:
//!
//! ```
//! use quark_runtime::store::Store;
//! use quark_storage::conformance::Fixture;
//!
//! struct InMemory(Store);
//!
//! impl Fixture for InMemory {
//!     async fn set_up() -> Self {
//!         Self(quark_storage::memory())
//!     }
//!     async fn open(&self) -> Store {
//!         self.0.clone()
//!     }
//! }
//!
//! quark_storage::conformance_tests!(InMemory);
//! quark_storage::stream_conformance_tests!(InMemory);
//! ```
//!
//! A failed promise is a panic that tells what was expected. No case needs the store to be slow or fast.

pub mod actors;
pub mod journals;
pub mod messages;
pub mod names;
pub mod reminders;
pub mod streams;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use quark_base::{Fault as _, Outcome, Retry, Timestamp};
use quark_runtime::store::{
    Address, Append, Commit, Conflict, ETag, Encoded, Epoch, Fence, Loaded, MessageId, OutboxMessage,
    OutboxPlace, PendingMessage, SlotWrite, Store, StoreError, Wanted,
};

/// Data of one store's own, for one test.
pub trait Fixture: Sized + Send + Sync + 'static {
    /// Begins with no data, apart from that of all other fixtures.
    fn set_up() -> impl Future<Output = Self> + Send;
    /// A store on this data, if possible with connections of its own.
    fn open(&self) -> impl Future<Output = Store> + Send;
}

/// The first messages that wait in outboxes.
pub(crate) async fn pending(store: &Store, limit: usize) -> Vec<PendingMessage> {
    let page = store.actors.outbox(&OutboxPlace::default(), limit).await;
    page.expect("an outbox can be read").messages
}

/// Runs one case to its end, on a runtime of its own with two threads.
///
/// # Panics
///
/// If the case fails.
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be made").block_on(case);
}

/// Makes a test of each promise of the ports to actors and reminders, for one [`Fixture`] of this module.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:ident) => {
        $crate::conformance_tests!(@part $fixture, actors:
            a_first_commit_is_read_back
            an_actor_that_never_wrote_is_empty
            states_are_read_in_the_order_they_are_asked_for
            several_states_are_written_at_once
            a_cleared_state_is_gone_and_may_be_written_again
            a_state_takes_its_next_value_by_its_etag
            a_wrong_etag_is_a_conflict_and_writes_nothing
            a_state_that_is_there_is_a_conflict_for_one_who_expects_none
            the_first_commit_of_two_activations_wins
            a_later_activation_shuts_the_earlier_one_out
            a_commit_of_an_earlier_activation_keeps_a_later_one_out
            the_fence_holds_across_states_and_journals
            an_activation_that_wrote_nothing_does_not_bar_another
            a_commit_sent_again_is_answered_and_not_repeated
            a_commit_that_was_overtaken_is_kept_out
            a_rejected_commit_does_not_use_its_number_up
            a_store_without_the_actor_says_that_it_is_lost
            a_failed_expectation_leaves_nothing_behind
            expectations_fail_in_order
            values_come_back_byte_by_byte
            unknown_formats_are_kept
            large_values_are_kept
            commits_survive_a_new_connection
            acknowledged_commits_of_many_tasks_are_all_there
            of_many_rivals_exactly_one_commits
            a_dropped_commit_leaves_the_store_usable
        );
        $crate::conformance_tests!(@part $fixture, names:
            odd_keys_and_names_are_kept_apart
            the_longest_names_are_kept
            names_that_no_store_takes_are_refused
        );
        $crate::conformance_tests!(@part $fixture, journals:
            events_are_numbered_from_one_and_read_in_order
            an_append_needs_the_last_sequence_number
            events_are_read_in_pages
            a_snapshot_is_replaced
            a_snapshot_may_come_without_events
            journals_of_an_actor_are_apart
            a_feed_has_the_events_of_all_actors_of_its_type
            a_feed_is_read_in_pages
            a_feed_goes_on_where_it_was_left
            a_feed_keeps_the_order_of_each_journal
            a_feed_skips_nothing_under_concurrent_commits
        );
        $crate::conformance_tests!(@part $fixture, messages:
            messages_wait_in_the_order_of_their_commits
            a_relayed_message_is_gone
            an_outbox_is_read_up_to_its_limit
            an_outbox_is_read_in_pages
            a_message_keeps_what_it_was_given
            a_message_takes_effect_once
            a_message_is_received_by_each_actor_for_itself
            old_receipts_are_forgotten_and_new_ones_kept
        );
        $crate::conformance_tests!(@part $fixture, reminders:
            a_reminder_is_read_back
            a_reminder_is_set_anew_in_place
            a_reminder_may_move_on_the_ring
            a_removed_reminder_is_gone
            reminders_of_an_actor_come_by_name
            due_reminders_come_soonest_first_up_to_the_limit
            pages_leave_nothing_out_and_give_nothing_twice
            many_of_one_time_are_read_in_pages
            a_page_goes_on_after_one_that_is_gone
            a_page_may_begin_at_a_time
            a_range_has_both_of_its_ends
            a_range_may_wrap_around
            the_soonest_due_time_is_known
            an_advance_moves_the_version_that_was_seen
            an_advance_without_a_next_time_removes
            reminders_survive_a_new_connection
            rivals_advance_a_reminder_once
            names_that_no_store_takes_are_refused
        );
    };
    (@part $fixture:ident, $part:ident: $($case:ident)*) => {
        mod $part {
            $(#[test]
            fn $case() {
                $crate::conformance::run($crate::conformance::$part::$case::<super::$fixture>());
            })*
        }
    };
}

/// Makes a test of each promise of the port to durable streams, for one [`Fixture`] of this module.
#[macro_export]
macro_rules! stream_conformance_tests {
    ($fixture:ident) => {
        $crate::conformance_tests!(@part $fixture, streams:
            items_come_in_the_order_of_their_appends
            items_keep_what_they_were_given
            the_items_of_each_key_keep_their_order
            a_read_gives_up_to_its_limit_and_each_item_once
            groups_read_independently
            what_is_acknowledged_never_comes_again
            what_is_not_acknowledged_comes_again_and_is_counted
            a_group_opened_again_goes_on_where_it_is
            a_group_may_begin_after_the_newest
            a_group_may_begin_at_a_time
            a_group_is_sent_back_to_the_oldest
            a_group_is_sent_to_the_newest
            a_group_is_sent_to_a_time
            a_group_is_sent_to_an_item
            a_group_is_behind_by_what_it_has_not_acknowledged
            a_waiting_read_sees_an_append
            a_read_of_nothing_ends_after_its_wait
            trimming_by_number_keeps_the_newest
            trimming_by_time_keeps_what_is_younger
            an_item_that_is_trimmed_is_not_waited_for
            a_group_that_was_never_opened_reads_nothing
            streams_survive_a_new_connection
            readers_of_a_group_share_its_items
            concurrent_appends_are_all_there
            names_that_no_store_takes_are_refused
        );
    };
}

const TYPE: &str = "conformance.actor";
const SLOT: &str = "state";
const JOURNAL: &str = "journal";
const NOW: Timestamp = Timestamp::VIRTUAL_ORIGIN;
/// How long a case waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn actor(key: &str) -> Address {
    Address::new(TYPE, key)
}

fn json(text: &str) -> Encoded {
    Encoded { format: "json".into(), version: 1, bytes: text.as_bytes().to_vec() }
}

fn message_id(text: &str) -> MessageId {
    MessageId::new(text).expect("a short id")
}

fn message_to(key: &str, body: &str) -> OutboxMessage {
    OutboxMessage { to: actor(key), method: "greet".into(), body: json(body) }
}

/// One activation, as the runtime would be one: it knows what it loaded and numbers its commits.
#[derive(Clone)]
struct Activation {
    actor: Address,
    fence: Fence,
}

impl Activation {
    /// Loads the actor and chooses an epoch that is `later` than the one it finds.
    async fn load(store: &Store, actor: Address, later: u64) -> Self {
        let seen = load(store, &actor).await.last;
        let epoch = Epoch(seen.map_or(0, |seen| seen.epoch.0) + later);
        Self { actor, fence: Fence { seen, epoch, sequence: 0 } }
    }

    /// The next commit, which writes nothing yet.
    fn next(&mut self) -> Commit {
        self.fence.sequence += 1;
        Commit::new(self.actor.clone(), self.fence, NOW)
    }

    /// The next commit, with one state in it.
    fn next_state(&mut self, name: &'static str, expected: Option<ETag>, value: &str) -> Commit {
        let mut commit = self.next();
        commit.slots.push(write(name, expected, value));
        commit
    }

    /// The next commit, with one event for [`JOURNAL`] in it.
    fn next_event(&mut self, expected: u64, value: &str) -> Commit {
        let mut commit = self.next();
        commit.appends.push(append(JOURNAL, expected, &[value]));
        commit
    }

    /// The ETag of what the last commit wrote.
    fn etag(&self) -> ETag {
        self.fence.etag()
    }
}

fn write(name: &'static str, expected: Option<ETag>, value: &str) -> SlotWrite {
    SlotWrite { name: name.into(), expected, value: Some(json(value)) }
}

fn append(journal: &'static str, expected: u64, events: &[&str]) -> Append {
    let events = events.iter().map(|event| json(event)).collect();
    Append { journal: journal.into(), expected, events, snapshot: None }
}

async fn load(store: &Store, actor: &Address) -> Loaded {
    load_named(store, actor, &[SLOT], &[JOURNAL]).await
}

async fn load_named(
    store: &Store,
    actor: &Address,
    slots: &[&'static str],
    journals: &[&'static str],
) -> Loaded {
    let wanted = Wanted {
        slots: slots.iter().map(|name| (*name).into()).collect(),
        journals: journals.iter().map(|name| (*name).into()).collect(),
    };
    let loaded = store.actors.load(actor, &wanted).await.expect("an actor can be loaded");
    assert_eq!(loaded.slots.len(), slots.len(), "one answer for each state that was asked for");
    assert_eq!(loaded.journals.len(), journals.len(), "one answer for each journal that was asked for");
    loaded
}

/// The text of the actor's [`SLOT`].
async fn state(store: &Store, actor: &Address) -> Option<String> {
    state_named(store, actor, SLOT).await
}

async fn state_named(store: &Store, actor: &Address, name: &'static str) -> Option<String> {
    let mut loaded = load_named(store, actor, &[name], &[]).await;
    let record = loaded.slots.pop().flatten()?;
    Some(String::from_utf8(record.value.bytes).expect("a state that was written as text"))
}

async fn commit(store: &Store, commit: &Commit) {
    store.actors.commit(commit).await.expect("a commit whose expectations hold goes through");
}

/// The operation was refused for a name.
fn refused<T: fmt::Debug>(name: &impl fmt::Debug, result: Result<T, StoreError>) {
    match result {
        Err(error @ StoreError::Name(_)) => {
            assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Pointless));
        }
        other => panic!("{name:?} should have been refused, got {other:?}"),
    }
}

/// The conflict that the commit ends in.
async fn conflict(store: &Store, commit: &Commit) -> Conflict {
    match store.actors.commit(commit).await {
        Err(StoreError::Conflict(conflict)) => *conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_has_a_test() {
        let listed = include_str!("conformance.rs");
        let parts = [
            include_str!("conformance/actors.rs"),
            include_str!("conformance/journals.rs"),
            include_str!("conformance/messages.rs"),
            include_str!("conformance/names.rs"),
            include_str!("conformance/reminders.rs"),
            include_str!("conformance/streams.rs"),
        ];
        let mut count = 0;
        for line in parts.iter().flat_map(|part| part.lines()) {
            let Some(name) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split('<').next())
            else {
                continue;
            };
            count += 1;
            assert!(listed.lines().any(|line| line.trim() == name), "{name} is in no list of tests");
        }
        assert!(count > 50, "only {count} cases were found");
    }
}
