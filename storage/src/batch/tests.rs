//! A batch against the store in memory, which takes the same commits one by one.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use quark_base::Timestamp;
use quark_runtime::store::{
    Address, Append, Commit, ETag, Encoded, Epoch, Fence, MessageId, OutboxMessage, OutboxPlace, SlotWrite,
    Snapshot, Store, Wanted,
};

use super::{Answers, Questions, Writes};
use crate::fence::Last;
use crate::known::Known;

const SLOTS: [&str; 2] = ["x", "y"];
const JOURNALS: [&str; 2] = ["j", "k"];

/// A journal's last event, and its snapshot.
type Head = (u64, Option<(u64, Encoded)>);

/// Rows, as a database would have them.
#[derive(Default)]
struct Tables {
    actors: BTreeMap<Address, Last>,
    slots: BTreeMap<(Address, String), (ETag, Encoded)>,
    journals: BTreeMap<(Address, String), Head>,
    events: Vec<(Address, String, u64, Encoded)>,
    outbox: Vec<(Address, ETag, u32, OutboxMessage)>,
    inbox: BTreeSet<(Address, MessageId)>,
}

impl Tables {
    fn answer(&self, questions: &Questions<'_>) -> Answers {
        let named = |(actor, name): &(&Address, &str)| ((*actor).clone(), (*name).to_owned());
        let mut answers = Answers::none(questions);
        answers.actors = questions.actors.iter().map(|actor| self.actors.get(actor).copied()).collect();
        let slot = |slot| self.slots.get(&named(slot)).map(|(etag, _)| *etag);
        answers.slots = questions.slots.iter().map(slot).collect();
        let journal = |journal| self.journals.get(&named(journal)).map_or(0, |(last, _)| *last);
        answers.journals = questions.journals.iter().map(journal).collect();
        let received = |(actor, message): &(&Address, &MessageId)| {
            self.inbox.contains(&((*actor).clone(), (*message).clone()))
        };
        answers.inbox = questions.inbox.iter().map(received).collect();
        answers
    }

    fn apply(&mut self, writes: &Writes<'_>) {
        for row in &writes.actors {
            let before = self.actors.insert(row.actor.clone(), row.last);
            assert_eq!(before, row.before, "{}", row.actor);
        }
        for row in &writes.slots {
            let name = (row.actor.clone(), row.name.to_owned());
            let before = self.slots.insert(name, (row.etag, row.value.clone()));
            assert_eq!(before.is_none(), row.is_new, "{} of {}", row.name, row.actor);
        }
        for (actor, name) in &writes.cleared {
            self.slots.remove(&((*actor).clone(), (*name).to_owned()));
        }
        for row in &writes.journals {
            let head = self.journals.entry((row.actor.clone(), row.journal.to_owned())).or_default();
            head.0 = row.last;
            head.1 = row.snapshot.map(|(at, value)| (at, value.clone())).or(head.1.take());
        }
        for row in &writes.events {
            self.events.push((row.actor.clone(), row.journal.to_owned(), row.sequence, row.value.clone()));
        }
        for row in &writes.outbox {
            self.outbox.push((row.from.clone(), row.commit, row.index, row.message.clone()));
        }
        for (actor, message, _) in &writes.inbox {
            assert!(self.inbox.insert(((*actor).clone(), (*message).clone())), "a receipt is written once");
        }
    }
}

fn value(number: u8) -> Encoded {
    Encoded { format: "postcard".into(), version: 1, bytes: vec![number] }
}

/// A commit from a world so small that every expectation is right now and then, and wrong now and then.
fn commit() -> impl Strategy<Value = Commit> {
    let etag = (1..3_u64, 1..4_u64).prop_map(|(epoch, sequence)| ETag { epoch: Epoch(epoch), sequence });
    let slot = (0..2_usize, prop::option::of(etag), prop::option::of(any::<u8>())).prop_map(
        |(name, expected, number)| SlotWrite { name: SLOTS[name].into(), expected, value: number.map(value) },
    );
    let append =
        (0..2_usize, 0..4_u64, prop::collection::vec(any::<u8>(), 0..3), prop::option::of(any::<u8>()))
            .prop_map(|(journal, expected, events, snapshot)| Append {
                journal: JOURNALS[journal].into(),
                expected,
                events: events.into_iter().map(value).collect(),
                snapshot: snapshot.map(value),
            });
    let fence = (0..2_u64, 1..3_u64, 1..3_u64, 1..4_u64).prop_map(|(seen, of_seen, later, sequence)| Fence {
        seen: (seen > 0).then_some(ETag { epoch: Epoch(seen), sequence: of_seen }),
        epoch: Epoch(seen + later),
        sequence,
    });
    let message = (any::<u8>()).prop_map(|number| OutboxMessage {
        to: Address::new("t", "other"),
        method: "m".into(),
        body: value(number),
    });
    let parts = (
        0..2_usize,
        fence,
        prop::collection::vec(slot, 0..3),
        prop::collection::vec(append, 0..3),
        prop::collection::vec(message, 0..2),
        prop::collection::btree_set(0..3_u8, 0..2),
    );
    parts.prop_map(|(actor, fence, mut slots, mut appends, outbox, inbox)| {
        let mut commit = Commit::new(Address::new("t", ["a", "b"][actor]), fence, Timestamp::VIRTUAL_ORIGIN);
        slots.dedup_by(|a, b| a.name == b.name);
        appends.dedup_by(|a, b| a.journal == b.journal);
        (commit.slots, commit.appends, commit.outbox) = (slots, appends, outbox);
        commit.inbox = inbox.into_iter().filter_map(|number| MessageId::new(number.to_string())).collect();
        commit
    })
}

/// What a future of the store in memory says; it never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

fn compare(tables: &Tables, oracle: &Store) {
    let wanted = Wanted { slots: SLOTS.map(Into::into).into(), journals: JOURNALS.map(Into::into).into() };
    for actor in ["a", "b"].map(|key| Address::new("t", key)) {
        let loaded = now(oracle.actors.load(&actor, &wanted)).unwrap();
        assert_eq!(loaded.last, tables.actors.get(&actor).map(|last| last.etag()));
        for (name, slot) in SLOTS.iter().zip(loaded.slots) {
            let row = tables.slots.get(&(actor.clone(), (*name).to_owned())).cloned();
            assert_eq!(slot.map(|slot| (slot.etag, slot.value)), row, "state {name} of {actor}");
        }
        for (name, head) in JOURNALS.iter().zip(loaded.journals) {
            let row = tables.journals.get(&(actor.clone(), (*name).to_owned())).cloned().unwrap_or_default();
            let snapshot = head.snapshot.map(|Snapshot { sequence, value }| (sequence, value));
            assert_eq!((head.last, snapshot), row, "journal {name} of {actor}");
            let events = now(oracle.actors.events(&actor, name, 0, 1000)).unwrap();
            let events: Vec<_> = events.into_iter().map(|event| (event.sequence, event.value)).collect();
            let of_journal = tables.events.iter().filter(|row| row.0 == actor && row.1 == *name);
            let rows: Vec<_> = of_journal.map(|row| (row.2, row.3.clone())).collect();
            assert_eq!(events, rows, "events of {name} of {actor}");
        }
        for number in 0..3 {
            let message = MessageId::new(number.to_string()).unwrap();
            let received = now(oracle.actors.has_received(&actor, &message)).unwrap();
            assert_eq!(received, tables.inbox.contains(&(actor.clone(), message)));
        }
    }
    let pending = now(oracle.actors.outbox(&OutboxPlace::default(), 1000)).unwrap().messages;
    let pending: Vec<_> =
        pending.into_iter().map(|sent| (sent.id.from, sent.id.commit, sent.id.index, sent.message)).collect();
    assert_eq!(pending, tables.outbox);
}

/// Who writes a batch.
#[derive(Clone, Copy, Debug)]
enum Writer {
    /// One that asks the tables for everything.
    Other,
    /// One that remembers, and whose transaction ends well.
    Own,
    /// The same, and it is rolled back.
    OwnInVain,
}

proptest! {
    #[test]
    fn a_batch_does_what_its_commits_do_one_by_one(
        batches in prop::collection::vec(prop::collection::vec(commit(), 1..12), 1..6),
    ) {
        let (mut tables, oracle) = (Tables::default(), crate::memory());
        for batch in batches {
            let questions = Questions::of(&batch);
            let mut answers = tables.answer(&questions);
            let (results, writes) = questions.decide(&batch, &mut answers, &"memory://".into());
            tables.apply(&writes);
            let expected: Vec<_> = batch.iter().map(|commit| now(oracle.actors.commit(commit))).collect();
            prop_assert_eq!(results, expected);
            compare(&tables, &oracle);
        }
    }

    /// With the actors asked for each time, as under row locks, and asked only after somebody else has written.
    #[test]
    fn what_is_remembered_is_what_the_tables_would_answer(
        batches in prop::collection::vec(
            (prop::collection::vec(commit(), 1..12), prop::sample::select(vec![Writer::Other, Writer::Own, Writer::OwnInVain])),
            1..12,
        ),
        actors_are_asked in any::<bool>(),
    ) {
        let (mut tables, mut known) = (Tables::default(), Known::nothing());
        for (batch, writer) in batches {
            let questions = Questions::of(&batch);
            let complete = tables.answer(&questions);
            let mut answers = tables.answer(&questions);
            if !matches!(writer, Writer::Other) {
                answers = Answers::none(&questions);
                answers.inbox.clone_from(&complete.inbox);
                let open = match actors_are_asked {
                    true => (0..questions.actors.len()).collect(),
                    false => known.answer_actors(&questions, &mut answers),
                };
                open.into_iter().for_each(|index| answers.actors[index] = complete.actors[index]);
                let (slots, journals) = known.answer_names(&questions, &mut answers);
                slots.into_iter().for_each(|index| answers.slots[index] = complete.slots[index]);
                journals.into_iter().for_each(|index| answers.journals[index] = complete.journals[index]);
                prop_assert_eq!(&answers, &complete);
            }
            let (_, writes) = questions.decide(&batch, &mut answers, &"memory://".into());
            match writer {
                Writer::Other if actors_are_asked => tables.apply(&writes),
                Writer::Other => {
                    tables.apply(&writes);
                    known.forget();
                }
                Writer::Own => {
                    tables.apply(&writes);
                    known.learn(&questions, &answers);
                }
                Writer::OwnInVain => {
                    known.learn(&questions, &answers);
                    known.forget();
                }
            }
        }
    }
}
