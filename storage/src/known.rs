//! What a database is known to have of the actors that committed last, so that it need not be asked.
//!
//! It stands on one rule of the tables: whatever changes an actor's states or journals changes its row in `quark_actor`.
//! So what was true of them when that row had a certain epoch and sequence is true while it has them. What a transaction
//! is about to write is learned before it ends: if it does not end well, [`forget`](Known::forget) all.

use hashlink::LruCache;
use quark_runtime::store::{Address, ETag};

use crate::batch::{Answers, Questions};
use crate::fence::Last;

/// Actors of which something is known, a few hundred bytes each. Those that committed longest ago make room; they are
/// asked about again.
const ACTORS_MAX: usize = 16_384;
/// States and journals of one actor of which something is known. Types declare a handful.
const NAMES_MAX: usize = 64;

/// What the database has.
pub(crate) struct Known {
    actors: LruCache<Address, Facts>,
}

/// What it has of one actor.
struct Facts {
    last: Last,
    slots: Vec<(Box<str>, Option<ETag>)>,
    journals: Vec<(Box<str>, u64)>,
}

impl Known {
    pub(crate) fn nothing() -> Self {
        Self { actors: LruCache::new(ACTORS_MAX) }
    }

    /// To be called whenever the database may have something else than was learned.
    pub(crate) fn forget(&mut self) {
        self.actors.clear();
    }

    /// Answers which commit was the last of each actor, as far as it is known, and gives the questions that stay. That is
    /// a guess, unless the caller knows that nobody else has written to the database.
    pub(crate) fn answer_actors(&mut self, questions: &Questions<'_>, answers: &mut Answers) -> Vec<usize> {
        let mut open = Vec::new();
        for (index, actor) in questions.actors.iter().enumerate() {
            match self.actors.get(*actor) {
                Some(facts) => answers.actors[index] = Some(facts.last),
                None => open.push(index),
            }
        }
        open
    }

    /// Answers where states and journals stand, as far as it is known, once it is answered which commits were the last.
    /// Gives the questions that stay: those of states and those of journals.
    pub(crate) fn answer_names(
        &mut self,
        questions: &Questions<'_>,
        answers: &mut Answers,
    ) -> (Vec<usize>, Vec<usize>) {
        for (actor, last) in questions.actors.iter().zip(&answers.actors) {
            if self.actors.peek(*actor).is_some_and(|facts| Some(facts.last) != *last) {
                self.actors.remove(*actor);
            }
        }
        let (mut slots, mut journals) = (Vec::new(), Vec::new());
        for (index, (actor, name)) in questions.slots.iter().enumerate() {
            match self.actors.peek(*actor).and_then(|facts| find(&facts.slots, name)) {
                Some(etag) => answers.slots[index] = etag,
                None => slots.push(index),
            }
        }
        for (index, (actor, name)) in questions.journals.iter().enumerate() {
            match self.actors.peek(*actor).and_then(|facts| find(&facts.journals, name)) {
                Some(last) => answers.journals[index] = last,
                None => journals.push(index),
            }
        }
        (slots, journals)
    }

    /// Learns what the database has once a batch is written: the answers as the batch leaves them. To be called after
    /// [`answer_names`](Self::answer_names) of the same questions.
    pub(crate) fn learn(&mut self, questions: &Questions<'_>, answers: &Answers) {
        for (actor, last) in questions.actors.iter().zip(&answers.actors) {
            let Some(last) = *last else { continue };
            match self.actors.get_mut(*actor) {
                Some(facts) => facts.last = last,
                None => {
                    let facts = Facts { last, slots: Vec::new(), journals: Vec::new() };
                    self.actors.insert((*actor).clone(), facts);
                }
            }
        }
        for ((actor, name), etag) in questions.slots.iter().zip(&answers.slots) {
            if let Some(facts) = self.actors.peek_mut(*actor) {
                set(&mut facts.slots, name, *etag);
            }
        }
        for ((actor, name), last) in questions.journals.iter().zip(&answers.journals) {
            if let Some(facts) = self.actors.peek_mut(*actor) {
                set(&mut facts.journals, name, *last);
            }
        }
    }
}

fn find<T: Copy>(list: &[(Box<str>, T)], name: &str) -> Option<T> {
    list.iter().find(|(known, _)| **known == *name).map(|(_, value)| *value)
}

fn set<T>(list: &mut Vec<(Box<str>, T)>, name: &str, value: T) {
    if let Some(known) = list.iter_mut().find(|(known, _)| **known == *name) {
        known.1 = value;
        return;
    }
    if list.len() == NAMES_MAX {
        list.clear();
    }
    list.push((name.into(), value));
}
