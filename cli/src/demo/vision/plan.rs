//! Who moves when: each camera's visits, from the seed alone, the same for both phases.

use std::num::NonZeroU32;
use std::time::Duration;

use quark_vision::random::Random;

/// The pause between two frames of a camera: 60 a second, as an inspection camera sends them.
const PACE: Duration = Duration::from_micros(16_667);
/// A machine with two cores keeps up with a frame in this time; more cameras send at a slower pace.
const PACE_PER_CAMERA: Duration = Duration::from_micros(2_000);
/// From the motion to the first frame, give or take the jitter.
const LEAD: Duration = Duration::from_millis(200);
const LEAD_JITTER: Duration = Duration::from_millis(30);
/// Cameras see the conveyor one after another, this far apart, give or take as much.
const STAGGER: Duration = Duration::from_millis(10);
/// Motions that no frames follow: a bird, a shadow.
const FALSE_ALARMS: f32 = 0.10;
/// Frames that no motion announced: a sensor that slept.
const UNANNOUNCED: f32 = 0.05;
/// Visits in a phase that make a 99th percentile more than the longest of a few.
const VISITS_WANTED: u32 = 120;
/// What the rounds of a phase may take in all.
const PHASE_TIME: Duration = Duration::from_secs(11);
/// What a round takes beside its lead and its burst: staggering, letting go, waiting.
const ROUND_OVERHEAD: Duration = Duration::from_millis(50);

/// What happens in front of one camera in one round, on the round's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) camera: u32,
    /// When the motion sensor says so; `None` if it misses it.
    pub(crate) motion_at: Option<Duration>,
    /// When the first frame comes; `None` for a false alarm.
    pub(crate) frames_at: Option<Duration>,
}

/// A whole phase.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cameras: u32,
    pub(crate) frames: u32,
    pub(crate) rounds: Vec<Vec<Visit>>,
    pub(crate) pace: Duration,
}

impl Plan {
    pub(crate) fn new(seed: u64, cameras: u32, frames: u32, rounds: NonZeroU32) -> Self {
        let visit = |camera, round| visit(seed, camera, cameras, round);
        let rounds = (0..rounds.get())
            .map(|round| (0..cameras).map(|camera| visit(camera, round)).collect())
            .collect();
        Self { cameras, frames, rounds, pace: pace(cameras) }
    }

    /// Frames in the whole phase.
    pub(crate) fn frames(&self) -> u64 {
        self.visits().filter(|visit| visit.frames_at.is_some()).count() as u64 * u64::from(self.frames)
    }

    pub(crate) fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.rounds.iter().flatten()
    }
}

/// As many rounds as make meaningful percentiles, if the time allows.
pub(crate) fn rounds_for(cameras: u32, frames: u32) -> u32 {
    let round = LEAD + pace(cameras) * frames + STAGGER * cameras + ROUND_OVERHEAD;
    let affordable = (PHASE_TIME.as_secs_f64() / round.as_secs_f64()) as u32;
    VISITS_WANTED.div_ceil(cameras.max(1)).min(affordable).max(1)
}

fn pace(cameras: u32) -> Duration {
    PACE.max(PACE_PER_CAMERA * cameras)
}

/// The cameras' shutters are triggered in turn, as a rig does it so that one flash does not blind another: each
/// frame falls into its camera's own part of the pace. Then latencies tell of loading, not of frames that
/// happened to come at once.
fn shutter(after: Duration, camera: u32, cameras: u32) -> Duration {
    let pace = pace(cameras);
    let own = pace / cameras.max(1) * camera;
    let periods = after.saturating_sub(own).as_nanos().div_ceil(pace.as_nanos());
    own + pace * u32::try_from(periods).unwrap_or(u32::MAX)
}

fn visit(seed: u64, camera: u32, cameras: u32, round: u32) -> Visit {
    let mut random = Random::keyed(&[seed, u64::from(camera), u64::from(round)]);
    let mut within = |span: Duration| span.mul_f32(random.unit());
    let motion = STAGGER * camera + within(STAGGER * 2);
    let wanted = motion + LEAD - LEAD_JITTER + within(LEAD_JITTER * 2);
    let frames = shutter(wanted, camera, cameras);
    let kind = random.unit();
    let (announced, real) = (kind >= UNANNOUNCED, kind < 1.0 - FALSE_ALARMS);
    Visit { camera, motion_at: announced.then_some(motion), frames_at: real.then_some(frames) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, cameras: u32, rounds: u32) -> Plan {
        Plan::new(seed, cameras, 5, NonZeroU32::new(rounds).expect("some rounds"))
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(plan(1, 4, 5).rounds, plan(1, 4, 5).rounds);
        assert_ne!(plan(1, 4, 5).rounds, plan(2, 4, 5).rounds);
        // A camera's motions don't depend on how many others there are.
        assert_eq!(plan(1, 4, 5).rounds[3][1].motion_at, plan(1, 2, 5).rounds[3][1].motion_at);
    }

    #[test]
    fn about_one_in_ten_is_a_false_alarm_and_one_in_twenty_unannounced() {
        let plan = plan(7, 50, 40);
        let count = |which: fn(&Visit) -> bool| plan.visits().filter(|visit| which(visit)).count();
        assert!((150..250).contains(&count(|visit| visit.frames_at.is_none())));
        assert!((65..135).contains(&count(|visit| visit.motion_at.is_none())));
        assert_eq!(count(|visit| visit.frames_at.is_none() && visit.motion_at.is_none()), 0);
        assert_eq!(plan.frames() as usize, 5 * count(|visit| visit.frames_at.is_some()));
        for visit in plan.visits() {
            if let (Some(motion), Some(frames)) = (visit.motion_at, visit.frames_at) {
                let lead = frames - motion;
                assert!(lead >= LEAD - LEAD_JITTER && lead <= LEAD + LEAD_JITTER + plan.pace, "{lead:?}");
            }
        }
    }

    #[test]
    fn no_two_cameras_take_frames_at_once() {
        let plan = plan(3, 8, 6);
        for visits in &plan.rounds {
            let mut phases: Vec<u128> = visits
                .iter()
                .filter_map(|visit| visit.frames_at)
                .map(|at| at.as_nanos() % plan.pace.as_nanos())
                .collect();
            phases.sort_unstable();
            assert!(phases.windows(2).all(|pair| pair[1] - pair[0] >= 2_000_000), "{phases:?}");
        }
    }

    #[test]
    fn rounds_fit_the_time_and_there_is_always_one() {
        assert!((10..=15).contains(&rounds_for(8, 30)), "{}", rounds_for(8, 30));
        assert_eq!(rounds_for(256, 10_000), 1);
        assert_eq!(rounds_for(256, 2), 1);
        assert!(rounds_for(1, 5) > 10);
    }
}
