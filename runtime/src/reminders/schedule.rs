//! When a reminder ticks: what a program says, what is stored of it, and the arithmetic between. Pure.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use quark_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::cron::CronLine;
use super::error::ScheduleError;

/// The shortest period. Each tick is a write to the store; what must happen more often is a timer's business.
pub const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Missed ticks of a cron line are counted up to here: counting them takes a step for each.
pub const MISSED_COUNTED_MAX: u32 = 1_000;

/// When a reminder ticks.
///
/// A periodic one keeps to its own grid of moments, however late its ticks are: of the moments that pass while nobody
/// can deliver them only the first is ticked, late, and says how many more were missed.
#[derive(Clone, Debug, PartialEq)]
pub struct ReminderSchedule(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Once(Start),
    Every { first: Option<Start>, period: Duration },
    Cron(CronLine),
}

/// A moment, or a time from when the reminder is set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    At(Timestamp),
    In(Duration),
}

impl ReminderSchedule {
    /// Once, at a moment. One that has passed already comes at once.
    pub fn at(moment: Timestamp) -> Self {
        Self(Kind::Once(Start::At(moment)))
    }

    /// Once, so long after it is set.
    pub fn after(delay: Duration) -> Self {
        Self(Kind::Once(Start::In(delay)))
    }

    /// Every `period`, at least [`PERIOD_MIN`] long, for the first time one period after it is set.
    pub fn every(period: Duration) -> Self {
        Self(Kind::Every { first: None, period })
    }

    /// Whenever a cron line matches: minute, hour, day of month, month, day of week, with seconds before and years
    /// behind them if wanted. `@daily` and its like, names of months and days, `L`, `#` and `W` are understood. It is
    /// read in UTC, unless [`in_zone`](Self::in_zone) says otherwise.
    ///
    /// # Errors
    /// [`ScheduleError::Cron`] with the line.
    pub fn cron(line: &str) -> Result<Self, ScheduleError> {
        Ok(Self(Kind::Cron(CronLine::new(line, CronLine::UTC)?)))
    }

    /// Reads the cron line in a time zone: `"UTC"`, an offset such as `"+05:30"`, or a name of the IANA's database such as
    /// `"Europe/Berlin"`.
    ///
    /// With fixed hours, a wall time that is skipped when clocks go forward ticks in the moment in which they do, and one
    /// that comes twice ticks the first time. A line whose hours begin with `*` follows the clocks.
    ///
    /// # Errors
    /// [`ScheduleError::Zone`], or [`ScheduleError::ZoneWithoutCron`].
    pub fn in_zone(self, zone: &str) -> Result<Self, ScheduleError> {
        match self.0 {
            Kind::Cron(cron) => Ok(Self(Kind::Cron(CronLine::new(cron.line(), zone)?))),
            _ => Err(ScheduleError::ZoneWithoutCron { zone: zone.into() }),
        }
    }

    /// Puts a periodic one's first tick at a moment. If that has passed when the reminder is set, it gives the grid alone,
    /// and the first tick is the next one of the grid. The other kinds are not changed.
    #[must_use]
    pub fn starting_at(self, moment: Timestamp) -> Self {
        self.starting(Start::At(moment))
    }

    /// Puts a periodic one's first tick so long after it is set. The other kinds are not changed.
    #[must_use]
    pub fn starting_in(self, delay: Duration) -> Self {
        self.starting(Start::In(delay))
    }

    fn starting(self, start: Start) -> Self {
        match self.0 {
            Kind::Every { period, .. } => Self(Kind::Every { first: Some(start), period }),
            other => Self(other),
        }
    }

    /// The schedule of a reminder that is set at `now`.
    fn plan(&self, now: Timestamp) -> Result<Plan, ScheduleError> {
        let moment = |start: &Start| match start {
            Start::At(moment) => *moment,
            Start::In(delay) => now.saturating_add(*delay),
        };
        match &self.0 {
            Kind::Once(start) => Ok(Plan::Once(moment(start))),
            Kind::Every { first, period } => {
                let too_often = ScheduleError::TooOften { period: *period };
                let millis = u64::try_from(period.as_millis()).ok().and_then(NonZeroU64::new);
                let millis = millis.filter(|_| *period >= PERIOD_MIN).ok_or(too_often)?;
                Ok(Plan::Every { first: moment(&first.unwrap_or(Start::In(*period))), period_ms: millis })
            }
            Kind::Cron(cron) => Ok(Plan::Cron(cron.clone())),
        }
    }

    /// Whether a reminder could be set with it at `now`.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), ScheduleError> {
        self.begin(now).map(drop)
    }

    /// The schedule of a reminder that is set at `now`, and its first tick.
    pub(crate) fn begin(&self, now: Timestamp) -> Result<(Plan, Timestamp), ScheduleError> {
        let plan = self.plan(now)?;
        match plan.first(now) {
            Some(first) => Ok((plan, first)),
            None => Err(ScheduleError::Never { schedule: self.to_string().into() }),
        }
    }

    /// Whether a reminder with `plan` was set with this schedule, whenever that was.
    pub(crate) fn is_of(&self, plan: &Plan) -> bool {
        let starts = |start: &Start, first: &Timestamp| match start {
            Start::At(moment) => moment == first,
            Start::In(_) => true,
        };
        match (&self.0, plan) {
            (Kind::Once(start), Plan::Once(at)) => starts(start, at),
            (Kind::Every { first, period }, Plan::Every { first: planned, period_ms }) => {
                period.as_millis() == u128::from(period_ms.get())
                    && first.as_ref().is_none_or(|first| starts(first, planned))
            }
            (Kind::Cron(cron), Plan::Cron(planned)) => cron == planned,
            _ => false,
        }
    }
}

impl From<Plan> for ReminderSchedule {
    fn from(plan: Plan) -> Self {
        Self(match plan {
            Plan::Once(at) => Kind::Once(Start::At(at)),
            Plan::Every { first, period_ms } => {
                Kind::Every { first: Some(Start::At(first)), period: Duration::from_millis(period_ms.get()) }
            }
            Plan::Cron(cron) => Kind::Cron(cron),
        })
    }
}

impl fmt::Display for ReminderSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Once(Start::At(at)) => write!(f, "once at {} ms", at.0),
            Kind::Once(Start::In(delay)) => write!(f, "once after {delay:?}"),
            Kind::Every { period, .. } => write!(f, "every {period:?}"),
            Kind::Cron(cron) => write!(f, "{cron:?}"),
        }
    }
}

/// A schedule as it is stored: nothing in it depends on when it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    Once(Timestamp),
    Every { first: Timestamp, period_ms: NonZeroU64 },
    Cron(CronLine),
}

/// Its text: `{"once":1767225600000}`, `{"every":{"first":1767225600000,"period_ms":60000}}`,
/// `{"cron":{"line":"0 8 * * *","zone":"UTC"}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Text {
    Once(u64),
    Every { first: u64, period_ms: NonZeroU64 },
    Cron { line: Box<str>, zone: Box<str> },
}

/// What a tick that is delivered now stands for, and what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Moments of the schedule after the due one that have passed already.
    pub(crate) missed: u32,
    /// The first that has not; none after the last.
    pub(crate) next: Option<Timestamp>,
}

impl Plan {
    pub(crate) fn text(&self) -> Result<String, ScheduleError> {
        let text = match self {
            Self::Once(at) => Text::Once(at.0),
            Self::Every { first, period_ms } => Text::Every { first: first.0, period_ms: *period_ms },
            Self::Cron(cron) => Text::Cron { line: cron.line().into(), zone: cron.zone_name().into() },
        };
        serde_json::to_string(&text).map_err(|cause| ScheduleError::Unreadable {
            text: format!("{self:?}").into(),
            cause: cause.to_string().into(),
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, ScheduleError> {
        let read: Text = serde_json::from_str(text).map_err(|cause| ScheduleError::Unreadable {
            text: text.into(),
            cause: cause.to_string().into(),
        })?;
        Ok(match read {
            Text::Once(at) => Self::Once(Timestamp(at)),
            Text::Every { first, period_ms } => Self::Every { first: Timestamp(first), period_ms },
            Text::Cron { line, zone } => Self::Cron(CronLine::new(&line, &zone)?),
        })
    }

    /// The first tick of a reminder that is set at `now`; none if there never is one.
    fn first(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once(at) => Some(*at),
            // At `now` itself it is still to come.
            Self::Every { .. } => self.next_after(Timestamp(now.0.saturating_sub(1))),
            Self::Cron(_) => self.next_after(now),
        }
    }

    /// The first moment of the schedule after `moment`.
    fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once(at) => Some(*at).filter(|at| *at > moment),
            Self::Every { first, .. } if *first > moment => Some(*first),
            Self::Every { first, period_ms } => {
                let passed = (moment.0 - first.0) / period_ms.get();
                let on = passed.checked_add(1)?.checked_mul(period_ms.get())?;
                first.0.checked_add(on).map(Timestamp)
            }
            Self::Cron(cron) => cron.next_after(moment),
        }
    }

    /// What follows a tick of `due` that is delivered at `now`. Never a moment at `due` or before, also when the clock
    /// was set back.
    pub(crate) fn step(&self, due: Timestamp, now: Timestamp) -> Step {
        let now = now.max(due);
        let mut next = self.next_after(due);
        match self {
            Self::Once(_) => Step { missed: 0, next: None },
            Self::Every { period_ms, .. } => {
                let passed = match next {
                    Some(next) if next <= now => (now.0 - next.0) / period_ms.get() + 1,
                    _ => 0,
                };
                let missed = u32::try_from(passed).unwrap_or(u32::MAX);
                Step { missed, next: if missed == 0 { next } else { self.next_after(now) } }
            }
            Self::Cron(_) => {
                let mut missed = 0;
                while let Some(moment) = next.filter(|moment| *moment <= now) {
                    missed += 1;
                    next = self.next_after(if missed == MISSED_COUNTED_MAX { now } else { moment });
                }
                Step { missed, next }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::VIRTUAL_ORIGIN;

    fn later(seconds: u64) -> Timestamp {
        NOW.saturating_add(Duration::from_secs(seconds))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plan(schedule: &ReminderSchedule) -> Plan {
        schedule.plan(NOW).unwrap()
    }

    #[test]
    fn a_schedule_survives_its_text() {
        let schedules = [
            (ReminderSchedule::after(seconds(60)), r#"{"once":1767225660000}"#),
            (ReminderSchedule::every(seconds(60)), r#"{"every":{"first":1767225660000,"period_ms":60000}}"#),
            (
                ReminderSchedule::cron("0 8 * * *").unwrap().in_zone("Europe/Berlin").unwrap(),
                r#"{"cron":{"line":"0 8 * * *","zone":"Europe/Berlin"}}"#,
            ),
        ];
        for (schedule, text) in schedules {
            let plan = plan(&schedule);
            assert_eq!(plan.text().unwrap(), text);
            assert_eq!(Plan::parse(text).unwrap(), plan);
            assert!(schedule.is_of(&plan));
            assert!(ReminderSchedule::from(plan.clone()).is_of(&plan));
        }
    }

    #[test]
    fn a_text_of_another_version_says_so() {
        for text in ["", "{}", r#"{"moon":"full"}"#, r#"{"every":{"first":0,"period_ms":0}}"#] {
            let error = Plan::parse(text).unwrap_err();
            assert!(matches!(error, ScheduleError::Unreadable { .. }), "{error}");
        }
    }

    #[test]
    fn late_ticks_become_one_and_the_grid_stands() {
        let plan = plan(&ReminderSchedule::every(seconds(10)));
        let due = plan.first(NOW).unwrap();
        assert_eq!(due, later(10));
        assert_eq!(plan.step(due, due), Step { missed: 0, next: Some(later(20)) });
        assert_eq!(plan.step(due, later(19)), Step { missed: 0, next: Some(later(20)) });
        assert_eq!(plan.step(due, later(20)), Step { missed: 1, next: Some(later(30)) });
        assert_eq!(plan.step(due, later(45)), Step { missed: 3, next: Some(later(50)) });
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_tick_again() {
        let plan = plan(&ReminderSchedule::every(seconds(10)));
        assert_eq!(plan.step(later(30), later(5)), Step { missed: 0, next: Some(later(40)) });
        let cron = ReminderSchedule::cron("* * * * *").unwrap().plan(NOW).unwrap();
        assert_eq!(cron.step(later(120), later(5)), Step { missed: 0, next: Some(later(180)) });
    }

    #[test]
    fn a_first_tick_may_be_put_anywhere_and_one_in_the_past_gives_the_grid() {
        let every = || ReminderSchedule::every(seconds(10));
        assert_eq!(plan(&every().starting_in(seconds(3))).first(NOW), Some(later(3)));
        assert_eq!(plan(&every().starting_at(NOW)).first(NOW), Some(NOW));
        let past = NOW.saturating_sub(seconds(13));
        assert_eq!(plan(&every().starting_at(past)).first(NOW), Some(later(7)));
        assert_eq!(
            plan(&ReminderSchedule::at(past)).first(NOW),
            Some(past),
            "once is better late than never"
        );
    }

    #[test]
    fn a_period_has_a_bound_below() {
        for period in [Duration::ZERO, Duration::from_millis(999)] {
            let refused = ReminderSchedule::every(period).plan(NOW);
            assert_eq!(refused, Err(ScheduleError::TooOften { period }));
        }
        assert!(ReminderSchedule::every(PERIOD_MIN).plan(NOW).is_ok());
    }

    #[test]
    fn only_a_cron_line_has_a_zone() {
        let refused = ReminderSchedule::every(seconds(60)).in_zone("UTC");
        assert_eq!(refused, Err(ScheduleError::ZoneWithoutCron { zone: "UTC".into() }));
    }

    #[test]
    fn missed_ticks_of_a_cron_line_are_counted_up_to_a_bound() {
        let plan = plan(&ReminderSchedule::cron("* * * * *").unwrap());
        assert_eq!(plan.step(later(60), later(60 * 8 + 1)), Step { missed: 7, next: Some(later(60 * 9)) });
        let years = plan.step(later(60), later(100_000_000));
        assert_eq!(years.missed, MISSED_COUNTED_MAX);
        assert_eq!(years.next, plan.next_after(later(100_000_000)));
    }

    #[test]
    fn the_end_of_time_is_an_end() {
        let plan = plan(&ReminderSchedule::every(PERIOD_MIN));
        assert_eq!(plan.step(Timestamp(u64::MAX), Timestamp(u64::MAX)).next, None);
        assert_eq!(plan.step(NOW, Timestamp(u64::MAX)).missed, u32::MAX);
    }

    proptest! {
        #[test]
        fn each_moment_is_ticked_or_counted_as_missed(period in 1_000_u64..100_000, delays in prop::collection::vec(0_u64..400_000, 1..20)) {
            let plan = plan(&ReminderSchedule::every(Duration::from_millis(period)));
            let (mut due, mut now, mut seen) = (plan.first(NOW).unwrap(), NOW, 0);
            for delay in delays {
                now = Timestamp(now.max(due).0 + delay);
                let step = plan.step(due, now);
                seen += 1 + u64::from(step.missed);
                due = step.next.unwrap();
                prop_assert!(due > now && due.0 <= now.0 + period);
            }
            prop_assert_eq!(due.0, NOW.0 + (seen + 1) * period);
        }
    }
}
