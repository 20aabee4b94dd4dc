//! When a timer ticks.

use std::time::Duration;

/// When a timer ticks, counted from when it is started.
///
/// A periodic timer keeps to its schedule: the n-th tick is due at the first one's time plus n periods, however late
/// the ticks before it were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub(super) first: Duration,
    pub(super) period: Option<Duration>,
    pub(super) keeps_active: bool,
}

impl Schedule {
    /// Once, after `delay`.
    pub const fn after(delay: Duration) -> Self {
        Self { first: delay, period: None, keeps_active: false }
    }

    /// Every `period`, for the first time after one period.
    pub const fn every(period: Duration) -> Self {
        Self { first: period, period: Some(period), keeps_active: false }
    }

    /// With the first tick after `delay`.
    pub const fn starting_in(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// The actor is not idle while the timer is active. Otherwise its ticks are no use of it: an actor that only its
    /// own timers call is deactivated after its idle time, and its timers with it.
    pub const fn keeping_active(mut self) -> Self {
        self.keeps_active = true;
        self
    }

    /// The first tick's time for a timer that is started at `now`.
    pub(super) fn start(&self, now: Duration) -> Duration {
        now.saturating_add(self.first)
    }

    /// The first tick after `now` of a timer whose tick of `due` has come, and how many ticks in between are too late
    /// to be sent. None for a timer that ticks once.
    pub(super) fn next(&self, due: Duration, now: Duration) -> Option<(Duration, u64)> {
        let period = self.period.filter(|period| !period.is_zero())?.as_nanos();
        let late = now.saturating_sub(due).as_nanos() / period;
        let on = u64::try_from((late + 1).saturating_mul(period)).unwrap_or(u64::MAX);
        Some((due.saturating_add(Duration::from_nanos(on)), u64::try_from(late).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_late_tick_does_not_shift_those_after_it() {
        let schedule = Schedule::every(ms(100)).starting_in(ms(30));
        assert_eq!(schedule.start(ms(1_000)), ms(1_030));
        assert_eq!(schedule.next(ms(1_030), ms(1_030)), Some((ms(1_130), 0)));
        assert_eq!(schedule.next(ms(1_030), ms(1_099)), Some((ms(1_130), 0)));
    }

    #[test]
    fn ticks_whose_time_passed_are_missed_and_the_schedule_stands() {
        let schedule = Schedule::every(ms(100));
        assert_eq!(schedule.next(ms(1_000), ms(1_250)), Some((ms(1_300), 2)));
        assert_eq!(
            schedule.next(ms(1_000), ms(1_100)),
            Some((ms(1_200), 1)),
            "the tick of just now is one of them"
        );
    }

    #[test]
    fn a_timer_that_ticks_once_has_no_next() {
        assert_eq!(Schedule::after(ms(5)).next(ms(5), ms(5)), None);
        assert_eq!(Schedule::every(Duration::ZERO).next(ms(5), ms(5)), None);
    }
}
