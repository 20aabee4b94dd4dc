//! Cron lines on the clocks of a time zone.
//!
//! The kept crate finds the next wall time that a line matches; this file turns wall times into moments, since what a
//! line means when clocks are put forward or back is a promise of ours:
//!
//! - A line with fixed hours ticks once for each of its wall times. One that is skipped when clocks go forward ticks in
//!   the moment in which they do; one that comes twice when they go back ticks the first time.
//! - A line whose hours begin with `*` means "again and again" and follows the clocks: it ticks at both passes of an hour
//!   that is repeated, and not for one that is skipped.

use std::fmt;

use chrono::{DateTime, Utc};
use croner::Cron;
use jiff::Timestamp as Instant;
use jiff::tz::{Offset, TimeZone};
use quark_base::Timestamp;

use super::error::ScheduleError;

/// The longest line that is read. The longest of use are far below it.
const LINE_MAX: usize = 256;

/// A cron line in a time zone.
#[derive(Clone)]
pub(crate) struct CronLine {
    line: Box<str>,
    zone_name: Box<str>,
    cron: Box<Cron>,
    zone: TimeZone,
    /// Its hours begin with `*`.
    follows_clocks: bool,
}

impl CronLine {
    /// The zone of a line that names none.
    pub(crate) const UTC: &'static str = "UTC";

    pub(crate) fn new(line: &str, zone_name: &str) -> Result<Self, ScheduleError> {
        let error = |cause: String| ScheduleError::Cron { line: line.into(), cause: cause.into() };
        if line.len() > LINE_MAX {
            return Err(ScheduleError::Cron {
                line: line.chars().take(LINE_MAX / char::MAX.len_utf8()).collect(),
                cause: format!("it is longer than {LINE_MAX} bytes").into(),
            });
        }
        let cron: Cron = line.parse().map_err(|cause: croner::errors::CronError| error(cause.to_string()))?;
        let zone = zone(zone_name).ok_or_else(|| ScheduleError::Zone { zone: zone_name.into() })?;
        Ok(Self {
            line: line.into(),
            zone_name: zone_name.into(),
            cron: Box::new(cron),
            zone,
            follows_clocks: follows_clocks(line),
        })
    }

    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    pub(crate) fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The first moment after `after` at which it ticks; none if it never does again.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let seconds = self.next_second(i64::try_from(after.0 / 1_000).ok()?)?;
        Some(Timestamp(u64::try_from(seconds).ok()?.saturating_mul(1_000)))
    }

    /// The same in seconds. Goes from one stretch of time with one offset to the next: within each, wall times and
    /// moments are the same but for the offset.
    fn next_second(&self, after: i64) -> Option<i64> {
        let begin = Instant::from_second(after).ok()?;
        let mut offset = seconds(self.zone.to_offset(begin));
        let mut wall = after.checked_add(1)? + offset;
        if let Some(begun) = self.last_change(after) {
            let before = seconds(self.zone.to_offset(Instant::from_second(begun - 1).ok()?));
            if !self.follows_clocks {
                // Wall times that were there already before the clocks went back.
                wall = wall.max(begun + before);
            }
        }
        let mut found = self.wall_time(wall)?;
        for change in self.zone.following(begin) {
            let (at, next_offset) = (change.timestamp().as_second(), seconds(change.offset()));
            if found - offset < at {
                break;
            }
            if next_offset > offset && !self.follows_clocks && found < at + next_offset {
                return Some(at);
            }
            let earliest = if self.follows_clocks { at + next_offset } else { at + next_offset.max(offset) };
            if earliest < wall || earliest > found {
                found = self.wall_time(earliest)?;
            }
            (wall, offset) = (earliest, next_offset);
        }
        Some(found - offset)
    }

    /// When the clocks last changed, at `second` or before.
    fn last_change(&self, second: i64) -> Option<i64> {
        let bound = Instant::from_second(second.checked_add(1)?).ok()?;
        self.zone.preceding(bound).next().map(|change| change.timestamp().as_second())
    }

    /// The first wall time at `from` or later that the line matches, both as seconds.
    fn wall_time(&self, from: i64) -> Option<i64> {
        let from: DateTime<Utc> = DateTime::from_timestamp(from, 0)?;
        Some(self.cron.find_next_occurrence(&from, true).ok()?.timestamp())
    }
}

/// Of one line and zone, as they are written.
impl PartialEq for CronLine {
    fn eq(&self, other: &Self) -> bool {
        (&self.line, &self.zone_name) == (&other.line, &other.zone_name)
    }
}

impl fmt::Debug for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cron {:?} in {}", self.line, self.zone_name)
    }
}

fn seconds(offset: Offset) -> i64 {
    i64::from(offset.seconds())
}

/// `UTC`, an offset such as `+05:30`, or a name of the IANA's database.
fn zone(name: &str) -> Option<TimeZone> {
    if name == CronLine::UTC {
        return Some(TimeZone::UTC);
    }
    match name.as_bytes().first()? {
        sign @ (b'+' | b'-') => {
            let digits = |text: &str, most: i32| {
                let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().ok().filter(|&number: &i32| two && number <= most)
            };
            let (hours, minutes) = name[1..].split_once(':')?;
            let offset = digits(hours, 23)? * 3_600 + digits(minutes, 59)? * 60;
            let offset = if *sign == b'-' { -offset } else { offset };
            Some(TimeZone::fixed(Offset::from_seconds(offset).ok()?))
        }
        _ => TimeZone::get(name).ok(),
    }
}

fn follows_clocks(line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields.as_slice() {
        [nickname] => nickname.eq_ignore_ascii_case("@hourly"),
        // With five fields the minutes come first, with more of them the seconds do.
        [_, hours, _, _, _] => hours.starts_with('*'),
        [_, _, hours, ..] => hours.starts_with('*'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "Europe/Berlin";

    fn at(text: &str) -> Timestamp {
        let instant: Instant = text.parse().unwrap();
        Timestamp(instant.as_millisecond() as u64)
    }

    /// The next moments after one, as UTC.
    fn after(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = CronLine::new(line, zone).unwrap();
        let mut moment = at(from);
        let mut next = || {
            let before = moment;
            moment = cron.next_after(before)?;
            assert!(moment > before, "time goes on");
            Some(Instant::from_millisecond(moment.0 as i64).unwrap().to_string())
        };
        std::iter::from_fn(&mut next).take(count).collect()
    }

    #[test]
    fn a_daily_line_ticks_at_its_wall_time_in_its_zone() {
        let utc = after("0 8 * * *", "UTC", "2026-01-01T00:00:00Z", 2);
        assert_eq!(utc, ["2026-01-01T08:00:00Z", "2026-01-02T08:00:00Z"]);
        assert_eq!(after("0 8 * * *", "UTC", "2026-01-01T08:00:00Z", 1), ["2026-01-02T08:00:00Z"]);
        assert_eq!(after("0 8 * * *", "UTC", "2026-01-01T07:59:59.999Z", 1), ["2026-01-01T08:00:00Z"]);
        assert_eq!(after("0 8 * * *", "UTC", "2026-01-01T08:00:00.001Z", 1), ["2026-01-02T08:00:00Z"]);
        assert_eq!(after("0 8 * * *", "+05:30", "2026-01-01T00:00:00Z", 1), ["2026-01-01T02:30:00Z"]);
        assert_eq!(after("0 8 * * *", "-08:00", "2026-01-01T00:00:00Z", 1), ["2026-01-01T16:00:00Z"]);
        let berlin = after("0 8 * * *", BERLIN, "2026-03-28T00:00:00Z", 2);
        assert_eq!(berlin, ["2026-03-28T07:00:00Z", "2026-03-29T06:00:00Z"], "summer time began in between");
    }

    #[test]
    fn a_wall_time_that_clocks_skip_ticks_when_they_go_forward() {
        // 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
        let skipped = after("30 2 * * *", BERLIN, "2026-03-28T00:00:00Z", 3);
        assert_eq!(skipped, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let just_before = after("30 2 * * *", BERLIN, "2026-03-29T00:59:59Z", 2);
        assert_eq!(just_before, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let list = after("0 2,3 * * *", BERLIN, "2026-03-29T00:00:00Z", 2);
        assert_eq!(list, ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"], "two wall times in one moment");
    }

    #[test]
    fn a_wall_time_that_comes_twice_ticks_the_first_time() {
        // 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC.
        let twice = after("30 2 * * *", BERLIN, "2026-10-24T12:00:00Z", 2);
        assert_eq!(twice, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let in_second_pass = after("30 2 * * *", BERLIN, "2026-10-25T01:10:00Z", 1);
        assert_eq!(in_second_pass, ["2026-10-26T01:30:00Z"]);
        let after_both = after("30 3 * * *", BERLIN, "2026-10-25T00:10:00Z", 1);
        assert_eq!(after_both, ["2026-10-25T02:30:00Z"]);
    }

    #[test]
    fn a_line_that_repeats_follows_the_clocks() {
        let back = after("*/30 * * * *", BERLIN, "2026-10-25T00:00:00Z", 5);
        let even = ["00:30", "01:00", "01:30", "02:00", "02:30"].map(|time| format!("2026-10-25T{time}:00Z"));
        assert_eq!(back, even);
        let forward = after("*/30 * * * *", BERLIN, "2026-03-29T00:00:00Z", 3);
        let even = ["00:30", "01:00", "01:30"].map(|time| format!("2026-03-29T{time}:00Z"));
        assert_eq!(forward, even);
        let even_hours = after("0 */2 * * *", BERLIN, "2026-03-28T22:00:00Z", 3);
        assert_eq!(even_hours, ["2026-03-28T23:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T04:00:00Z"]);
    }

    #[test]
    fn a_leap_day_is_waited_for() {
        let leap = after("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2);
        assert_eq!(leap, ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
        let around_2100 = after("0 0 29 2 *", BERLIN, "2096-03-01T00:00:00Z", 1);
        assert_eq!(around_2100, ["2104-02-28T23:00:00Z"], "2100 is no leap year");
        let last = after("0 12 L * *", "UTC", "2026-02-01T00:00:00Z", 2);
        assert_eq!(last, ["2026-02-28T12:00:00Z", "2026-03-31T12:00:00Z"]);
    }

    #[test]
    fn a_line_may_have_seconds_and_names() {
        assert_eq!(after("15 30 9 * * MON", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-05T09:30:15Z"]);
        assert_eq!(after("@daily", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
        assert_eq!(after("@hourly", BERLIN, "2026-10-25T00:00:00Z", 1), ["2026-10-25T01:00:00Z"]);
    }

    #[test]
    fn a_line_that_never_comes_has_no_next() {
        assert!(after("0 0 30 2 *", BERLIN, "2026-01-01T00:00:00Z", 1).is_empty());
        assert!(after("0 0 0 1 1 * 2020", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn a_wrong_line_or_zone_is_named() {
        for line in ["", "0 25 * * *", "61 * * * *", "every day", "* * *", "0 0 0 0 0 0 0 0"] {
            let error = CronLine::new(line, "UTC").unwrap_err();
            assert!(matches!(&error, ScheduleError::Cron { line: named, .. } if &**named == line), "{error}");
        }
        assert!(CronLine::new(&"*".repeat(LINE_MAX + 1), "UTC").is_err());
        for zone in ["", "Europe/Nowhere", "+5:30", "+24:00", "+05:60", "+", "+ü1:00"] {
            let error = CronLine::new("0 8 * * *", zone).unwrap_err();
            assert_eq!(error, ScheduleError::Zone { zone: zone.into() });
        }
    }
}
