//! The queue of one type's dead letters: pure, with `now` and chance as arguments.

use std::collections::VecDeque;
use std::time::Duration;

use quark_base::{ActorId, Key};

use super::DeadLetterSpec;
use super::letter::{DeadCause, DeadLetter, LetterId};

/// What a message has been through before its present delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// The letter it was, and when that first died.
    pub(super) letter: Option<(LetterId, Duration)>,
    /// Deliveries so far.
    pub(super) attempts: u32,
    /// Whether it may be sent again by itself: nobody waits for its answer.
    pub(super) retried: bool,
}

impl Past {
    /// A message that nobody waits for, on its first delivery.
    pub(crate) const fn one_way() -> Self {
        Self { letter: None, attempts: 0, retried: true }
    }

    /// A message whose caller is told what becomes of it.
    pub(crate) const fn asked() -> Self {
        Self { letter: None, attempts: 0, retried: false }
    }

    /// A message that was delivered so often, and is not sent again by itself.
    pub(crate) const fn after(attempts: u32) -> Self {
        Self { letter: None, attempts: attempts.saturating_sub(1), retried: false }
    }

    /// Whether it has been a dead letter before.
    pub(crate) fn is_replay(&self) -> bool {
        self.letter.is_some()
    }
}

/// A bounded queue of letters, oldest first. `P` is a message that was kept.
pub(crate) struct Queue<P> {
    spec: DeadLetterSpec,
    letters: VecDeque<Letter<P>>,
    next_id: u64,
    /// Letters that went because the queue was full.
    overflowed: u64,
    /// No letter is due before this.
    next_due: Option<Duration>,
}

struct Letter<P> {
    id: LetterId,
    key: Key,
    method: &'static str,
    cause: DeadCause,
    attempts: u32,
    retried: bool,
    first_at: Duration,
    last_at: Duration,
    due: Option<Duration>,
    message: Option<P>,
}

/// A letter on its way back to its actor.
pub(super) struct Outgoing<P> {
    pub(super) key: Key,
    pub(super) past: Past,
    pub(super) message: P,
}

impl<P> Queue<P> {
    pub(crate) fn new(spec: DeadLetterSpec) -> Self {
        Self { spec, letters: VecDeque::new(), next_id: 0, overflowed: 0, next_due: None }
    }

    /// Takes in a message that failed. A letter that comes back is the newest again, under its old name. Gives the
    /// message that had to go for it, to be dropped where no lock is held.
    #[expect(clippy::too_many_arguments, reason = "the fields of a letter, and what the pure core is given")]
    pub(crate) fn bury(
        &mut self,
        key: Key,
        method: &'static str,
        cause: DeadCause,
        past: Past,
        message: Option<P>,
        now: Duration,
        random: u64,
    ) -> Option<P> {
        let (id, first_at) = past.letter.unwrap_or_else(|| {
            self.next_id += 1;
            (LetterId(self.next_id), now)
        });
        let again = message.is_some() && past.retried && past.attempts < self.spec.retries;
        let due = again.then(|| now + self.spec.backoff.delay(past.attempts, random));
        let full = self.letters.len() >= self.spec.max as usize;
        let gone = if full { self.letters.pop_front() } else { None };
        self.overflowed += u64::from(full);
        let attempts = past.attempts.saturating_add(1);
        let retried = past.retried;
        let letter =
            Letter { id, key, method, cause, attempts, retried, first_at, last_at: now, due, message };
        self.letters.push_back(letter);
        self.next_due = [self.next_due, due].into_iter().flatten().min();
        gone?.message
    }

    /// Takes out the letters that are due, at most `limit` of them.
    pub(super) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<Outgoing<P>> {
        if self.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut left = limit;
        self.take_all(|letter| {
            let taken = left > 0 && letter.due.is_some_and(|due| due <= now);
            left -= usize::from(taken);
            taken
        })
    }

    fn note_due(&mut self) {
        self.next_due = self.letters.iter().filter_map(|letter| letter.due).min();
    }

    /// Takes one letter out to be sent again. `None` in the result if its message was not kept; it then stays.
    pub(super) fn take(&mut self, id: LetterId) -> Option<Option<Outgoing<P>>> {
        let at = self.letters.iter().position(|letter| letter.id == id)?;
        if self.letters[at].message.is_none() {
            return Some(None);
        }
        let letter = self.letters.remove(at);
        self.note_due();
        Some(letter.and_then(Letter::into_outgoing))
    }

    /// Takes out those with a message that `wanted` names: all, or one actor's.
    pub(super) fn take_of(&mut self, key: Option<&str>) -> Vec<Outgoing<P>> {
        self.take_all(|letter| key.is_none_or(|key| letter.key.as_str() == key))
    }

    fn take_all(&mut self, mut wanted: impl FnMut(&Letter<P>) -> bool) -> Vec<Outgoing<P>> {
        let (go, stay) = self
            .letters
            .drain(..)
            .partition::<VecDeque<_>, _>(|letter| letter.message.is_some() && wanted(letter));
        self.letters = stay;
        self.note_due();
        go.into_iter().filter_map(Letter::into_outgoing).collect()
    }

    /// Drops one letter, one actor's, or all. Gives them, so that messages are dropped outside the lock.
    pub(super) fn purge(&mut self, wanted: impl Fn(LetterId, &Key) -> bool) -> Vec<Option<P>> {
        let (go, stay) =
            self.letters.drain(..).partition::<VecDeque<_>, _>(|letter| wanted(letter.id, &letter.key));
        self.letters = stay;
        self.note_due();
        go.into_iter().map(|letter| letter.message).collect()
    }

    /// The letters as users see them; `describe` writes what a message is.
    pub(super) fn describe(
        &self,
        actor_type: &'static str,
        key: Option<&str>,
        describe: impl Fn(&P) -> Box<str>,
    ) -> Vec<DeadLetter> {
        let wanted = self.letters.iter().filter(|letter| key.is_none_or(|key| letter.key.as_str() == key));
        let described = wanted.map(|letter| DeadLetter {
            id: letter.id,
            actor: ActorId { actor_type, key: letter.key.clone() },
            method: letter.method,
            cause: letter.cause.clone(),
            attempts: letter.attempts,
            first_at: letter.first_at,
            last_at: letter.last_at,
            retry_at: letter.due,
            message: letter.message.as_ref().map(&describe),
        });
        described.collect()
    }

    /// Whether letters wait to be sent again by themselves.
    pub(crate) fn has_retries(&self) -> bool {
        self.next_due.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

impl<P> Letter<P> {
    fn into_outgoing(self) -> Option<Outgoing<P>> {
        let past =
            Past { letter: Some((self.id, self.first_at)), attempts: self.attempts, retried: self.retried };
        Some(Outgoing { key: self.key, past, message: self.message? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backoff::Backoff;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue(max: u32, retries: u32) -> Queue<u32> {
        let backoff = Backoff::new(SECOND, 8 * SECOND);
        Queue::new(DeadLetterSpec { max, retries, backoff, ..DeadLetterSpec::DEFAULT })
    }

    /// Without luck: every wait is its longest.
    fn bury(
        queue: &mut Queue<u32>,
        key: &str,
        past: Past,
        message: Option<u32>,
        now: Duration,
    ) -> Option<u32> {
        queue.bury(key.into(), "m", DeadCause::Returned("no".into()), past, message, now, u64::MAX)
    }

    fn ids(queue: &Queue<u32>) -> Vec<u64> {
        queue.describe("t", None, |_| "".into()).into_iter().map(|letter| letter.id.0).collect()
    }

    #[test]
    fn the_oldest_goes_when_the_queue_is_full() {
        let mut queue = queue(2, 0);
        let gone: Vec<_> =
            (0..4).map(|n| bury(&mut queue, "a", Past::one_way(), Some(n), Duration::ZERO)).collect();
        assert_eq!(gone, [None, None, Some(0), Some(1)]);
        assert_eq!((ids(&queue), queue.overflowed()), (vec![3, 4], 2));
    }

    #[test]
    fn a_letter_is_due_with_growing_waits_until_its_tries_are_used_up() {
        let mut queue = queue(10, 2);
        let mut now = Duration::ZERO;
        bury(&mut queue, "a", Past::one_way(), Some(7), now);
        for wait in [SECOND, 2 * SECOND] {
            assert!(queue.take_due(now + wait - Duration::from_millis(1), 9).is_empty());
            now += wait;
            let out = queue.take_due(now, 9).pop().unwrap();
            assert_eq!((queue.len(), out.message), (0, 7));
            bury(&mut queue, "a", out.past, Some(out.message), now);
        }
        assert!(queue.take_due(now + 100 * SECOND, 9).is_empty());
        let letter = queue.describe("t", None, |_| "".into()).pop().unwrap();
        assert_eq!((letter.id, letter.attempts, letter.retry_at), (LetterId(1), 3, None));
        assert_eq!((letter.first_at, letter.last_at), (Duration::ZERO, now));
    }

    #[test]
    fn one_look_takes_no_more_than_its_limit_and_the_next_one_the_rest() {
        let mut queue = queue(10, 1);
        for n in 0..5 {
            bury(&mut queue, "a", Past::one_way(), Some(n), Duration::ZERO);
        }
        let sizes = [3, 3].map(|limit| queue.take_due(SECOND, limit).len());
        assert_eq!(sizes, [3, 2]);
    }

    #[test]
    fn an_ask_is_kept_but_not_sent_again_by_itself() {
        let mut queue = queue(10, 3);
        bury(&mut queue, "a", Past::asked(), Some(1), Duration::ZERO);
        assert!(queue.take_due(100 * SECOND, 9).is_empty());
        assert_eq!(queue.take(LetterId(1)).unwrap().unwrap().message, 1);
    }

    #[test]
    fn a_letter_without_its_message_stays_when_it_is_to_be_replayed() {
        let mut queue = queue(10, 3);
        bury(&mut queue, "a", Past::one_way(), None, Duration::ZERO);
        assert!(queue.take(LetterId(1)).unwrap().is_none());
        assert!(queue.take_of(None).is_empty() && queue.take_due(100 * SECOND, 9).is_empty());
        assert!(queue.take(LetterId(2)).is_none());
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn letters_are_taken_and_purged_by_actor() {
        let mut queue = queue(10, 0);
        for (n, key) in ["a", "b", "a", "b"].into_iter().enumerate() {
            bury(&mut queue, key, Past::one_way(), Some(n as u32), Duration::ZERO);
        }
        let taken: Vec<_> = queue.take_of(Some("a")).into_iter().map(|out| out.message).collect();
        assert_eq!(taken, [0, 2]);
        assert_eq!(queue.purge(|_, key| key.as_str() == "b"), [Some(1), Some(3)]);
        assert_eq!(queue.len(), 0);
    }

    proptest! {
        /// Whatever comes and goes, in whatever order: the bound holds, and each message is in exactly one place.
        #[test]
        fn no_message_is_lost_or_doubled(steps in prop::collection::vec((0_u8..4, 0_u64..3), 0..200)) {
            let mut queue = queue(5, 2);
            let (mut now, mut next, mut gone) = (Duration::ZERO, 0_u32, Vec::new());
            let mut under_way: Vec<Outgoing<u32>> = Vec::new();
            for (step, amount) in steps {
                match step {
                    0 => {
                        gone.extend(bury(&mut queue, "a", Past::one_way(), Some(next), now));
                        next += 1;
                    }
                    1 => under_way.extend(queue.take_due(now, amount as usize)),
                    2 => {
                        for out in under_way.drain(..) {
                            gone.extend(bury(&mut queue, "a", out.past, Some(out.message), now));
                        }
                    }
                    _ => now += SECOND * amount as u32,
                }
                prop_assert!(queue.len() <= 5);
            }
            let mut all = gone;
            all.extend(under_way.into_iter().map(|out| out.message));
            all.extend(queue.take_of(None).into_iter().map(|out| out.message));
            all.sort_unstable();
            prop_assert_eq!(all, (0..next).collect::<Vec<_>>());
        }
    }
}
