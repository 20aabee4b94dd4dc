//! The circuit breaker: a type that keeps failing is left alone for a while, then tried with a few calls.
//!
//! | state     | lets through         | leaves for                                                             |
//! |-----------|----------------------|------------------------------------------------------------------------|
//! | closed    | everything           | open: `failures` of them within `within`                               |
//! | open      | nothing              | half-open: at the first call after `open`                              |
//! | half-open | `probes` calls       | closed: that many answered; open: one failed; half-open again: no      |
//! |           |                      | answer for as long as `open`, since a probe's caller may have gone     |
//!
//! One breaker serves all actors of a type on a silo: what breaks is mostly what they have in common. The pattern
//! is Michael Nygard's (*Release It!*, 2007).
//!
//! A call carries the breaker's generation at its admission, and what it ends in counts only in that generation:
//! a call that began before the breaker opened says nothing about how the probes fare.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The most failures that a breaker may be told to wait for: it remembers when each of them was.
pub const FAILURES_MAX: u32 = 1_000;

/// When calls of a type are refused because they keep failing.
///
/// Panics, failed activations and timeouts are failures. A method's own errors are answers, unless
/// [`errors`](Self::errors) says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    within: Duration,
    open: Duration,
    probes: u32,
    errors: bool,
}

impl Breaker {
    /// Opens at so many failures, from 1 up to [`FAILURES_MAX`], within 10 seconds.
    pub const fn after(failures: u32) -> Self {
        let failures = if failures == 0 { 1 } else { failures };
        let failures = if failures > FAILURES_MAX { FAILURES_MAX } else { failures };
        Self { failures, within: Self::WITHIN, open: Self::OPEN, probes: 1, errors: false }
    }

    /// How close together the failures must be, if nothing is said: a burst, not a day's worth.
    pub const WITHIN: Duration = Duration::from_secs(10);
    /// How long calls are refused, if nothing is said: time for a restart of what they depend on.
    pub const OPEN: Duration = Duration::from_secs(30);

    /// Counts failures over this time.
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Refuses calls for this long before the next try.
    pub const fn open(mut self, open: Duration) -> Self {
        self.open = open;
        self
    }

    /// Tries with so many calls, all of which must be answered; at least one.
    pub const fn probes(mut self, probes: u32) -> Self {
        self.probes = if probes == 0 { 1 } else { probes };
        self
    }

    /// Counts the methods' own errors as failures too.
    pub const fn errors(mut self) -> Self {
        self.errors = true;
        self
    }

    pub(crate) fn counts_errors(&self) -> bool {
        self.errors
    }
}

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls go through, to see.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// The generation in which a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u32);

impl Pass {
    /// Of a call that met no breaker.
    pub(crate) const ANY: Self = Self(0);
}

/// The breaker itself, without a clock.
#[derive(Debug)]
struct Machine {
    spec: Breaker,
    state: State,
    generation: u32,
    /// When the latest failures were, oldest first; at most `spec.failures`.
    failed_at: VecDeque<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    HalfOpen { since: Duration, let_through: u32, answered: u32 },
}

impl Machine {
    fn new(spec: Breaker) -> Self {
        Self { spec, state: State::Closed, generation: Self::FIRST, failed_at: VecDeque::new() }
    }

    const FIRST: u32 = 1;

    /// How long calls stay refused, if they are.
    fn refused_for(&self, now: Duration) -> Option<Duration> {
        let until = match self.state {
            State::Open { until } => until,
            State::HalfOpen { since, let_through, .. } if let_through >= self.spec.probes => {
                since + self.spec.open
            }
            State::Closed | State::HalfOpen { .. } => return None,
        };
        (now < until).then(|| until - now)
    }

    /// Lets a call through, or says for how long none will be.
    fn admit(&mut self, now: Duration) -> Result<Pass, Duration> {
        if let Some(still) = self.refused_for(now) {
            return Err(still);
        }
        match &mut self.state {
            State::Closed => {}
            State::HalfOpen { let_through, .. } if *let_through < self.spec.probes => *let_through += 1,
            // It is time for a first probe, or for another one after those that nothing was heard of.
            State::Open { .. } | State::HalfOpen { .. } => {
                self.enter(State::HalfOpen { since: now, let_through: 1, answered: 0 });
            }
        }
        Ok(Pass(self.generation))
    }

    fn answered(&mut self, pass: Pass) {
        if pass.0 != self.generation {
            return;
        }
        if let State::HalfOpen { answered, .. } = &mut self.state {
            *answered += 1;
            if *answered >= self.spec.probes {
                self.enter(State::Closed);
            }
        }
    }

    fn failed(&mut self, pass: Pass, now: Duration) {
        if pass.0 != self.generation {
            return;
        }
        match self.state {
            State::Open { .. } => {}
            State::HalfOpen { .. } => self.enter(State::Open { until: now + self.spec.open }),
            State::Closed => {
                self.failed_at.push_back(now);
                while self.failed_at.front().is_some_and(|&at| now.saturating_sub(at) > self.spec.within) {
                    self.failed_at.pop_front();
                }
                if self.failed_at.len() >= self.spec.failures as usize {
                    self.enter(State::Open { until: now + self.spec.open });
                }
            }
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.failed_at.clear();
        // Zero says "not closed" to those who read without the lock.
        self.generation = self.generation.checked_add(1).unwrap_or(Self::FIRST);
    }
}

/// A breaker that many threads pass. While it is closed, passing it is one load.
#[derive(Debug)]
pub(crate) struct SharedBreaker {
    /// The generation while closed; zero in any other state.
    closed: AtomicU32,
    machine: Mutex<Machine>,
}

impl SharedBreaker {
    pub(crate) fn new(spec: Breaker) -> Self {
        Self { closed: AtomicU32::new(Machine::FIRST), machine: Mutex::new(Machine::new(spec)) }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.machine.lock();
        let result = change(&mut machine);
        let closed = if machine.state == State::Closed { machine.generation } else { 0 };
        self.closed.store(closed, Ordering::Release);
        result
    }

    fn passes_freely(&self) -> Option<Pass> {
        Some(Pass(self.closed.load(Ordering::Acquire))).filter(|pass| pass.0 != 0)
    }

    /// How long calls stay refused, if they are.
    pub(crate) fn refused_for(&self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        if self.passes_freely().is_some() {
            return None;
        }
        self.with(|machine| machine.refused_for(now()))
    }

    /// Lets a call through, or says for how long none will be.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Duration) -> Result<Pass, Duration> {
        match self.passes_freely() {
            Some(pass) => Ok(pass),
            None => self.with(|machine| machine.admit(now())),
        }
    }

    /// The pass of a call that carries none: whatever generation it is now.
    pub(crate) fn current(&self) -> Pass {
        self.passes_freely().unwrap_or_else(|| self.with(|machine| Pass(machine.generation)))
    }

    /// A call that was let through got its answer.
    pub(crate) fn answered(&self, pass: Pass) {
        // An answer changes nothing while the breaker is closed.
        if self.passes_freely().is_none() {
            self.with(|machine| machine.answered(pass));
        }
    }

    /// A call that was let through failed.
    pub(crate) fn failed(&self, pass: Pass, now: Duration) {
        self.with(|machine| machine.failed(pass, now));
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.machine.lock().state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn machine() -> Machine {
        Machine::new(Breaker::after(3).within(s(10)).open(s(30)).probes(2))
    }

    fn opened_at(now: Duration) -> Machine {
        let mut machine = machine();
        for _ in 0..3 {
            let pass = machine.admit(now).unwrap();
            machine.failed(pass, now);
        }
        machine
    }

    #[test]
    fn it_opens_at_the_declared_number_of_failures_in_the_declared_time() {
        let mut machine = machine();
        for at in [0, 6, 12, 18] {
            let pass = machine.admit(s(at)).unwrap();
            machine.failed(pass, s(at));
            assert_eq!(machine.state, State::Closed, "never three within ten seconds");
        }
        let pass = machine.admit(s(19)).unwrap();
        machine.failed(pass, s(19));
        assert_eq!(machine.admit(s(20)), Err(s(29)), "12, 18 and 19 are within ten seconds");
    }

    #[test]
    fn it_closes_when_all_probes_are_answered() {
        let mut machine = opened_at(s(0));
        assert_eq!(machine.admit(s(29)), Err(s(1)));
        let (first, second) = (machine.admit(s(30)).unwrap(), machine.admit(s(31)).unwrap());
        assert_eq!(machine.admit(s(32)), Err(s(28)), "two probes are enough");
        machine.answered(first);
        assert_ne!(machine.state, State::Closed);
        machine.answered(second);
        assert_eq!(machine.state, State::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let mut machine = opened_at(s(0));
        let probe = machine.admit(s(30)).unwrap();
        machine.failed(probe, s(31));
        assert_eq!(machine.admit(s(32)), Err(s(29)));
    }

    #[test]
    fn probes_that_nothing_is_heard_of_are_replaced() {
        let mut machine = opened_at(s(0));
        let lost = machine.admit(s(30)).unwrap();
        machine.admit(s(30)).unwrap();
        assert_eq!(machine.admit(s(59)), Err(s(1)));
        let (first, second) = (machine.admit(s(60)).unwrap(), machine.admit(s(60)).unwrap());
        machine.answered(lost);
        machine.answered(first);
        assert_ne!(machine.state, State::Closed, "a probe of the last round says nothing in this one");
        machine.answered(second);
        assert_eq!(machine.state, State::Closed);
    }

    #[test]
    fn what_began_before_it_opened_does_not_count_afterwards() {
        let mut machine = machine();
        let old = machine.admit(s(0)).unwrap();
        for _ in 0..3 {
            machine.failed(old, s(1));
        }
        machine.admit(s(31)).unwrap();
        machine.failed(old, s(32));
        assert!(matches!(machine.state, State::HalfOpen { .. }));
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut machine = Machine::new(Breaker::after(u32::MAX).within(Duration::MAX));
        for at in 0..3 * u64::from(FAILURES_MAX) {
            if let Ok(pass) = machine.admit(s(at)) {
                machine.failed(pass, s(at));
            }
        }
        assert!(machine.failed_at.len() <= FAILURES_MAX as usize);
    }
}
