//! One phase: a fresh silo, every round of the plan, and what its frames waited.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use quark::base::{Clock, MonotonicClock};
use quark::predictive::{PrewarmBudget, Score as PrewarmScore};
use quark::profiling::{DeviceMeter, LatencyHistogram};
use quark::{Actor, ByteSize, Grid, PublishError, Silo, StreamId};
use quark_vision::actor::{FRAMES, MOTION};
use quark_vision::analyze::Score;
use quark_vision::infer::Backend;
use quark_vision::{AnalyzerOptions, Motion, MotionLog, Sighting, VisionAnalyzer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant as Moment, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::belt::Belt;
use super::plan::{Plan, Visit};
use super::target::Target;

/// Results on their way to the collector; analyzers wait while it is full.
const SIGHTINGS: usize = 1_024;
/// The least often that the ledger's books are looked at for their peaks.
const LOOK_AT_BOOKS: Duration = Duration::from_millis(20);
/// How often it is looked whether every analyzer is gone.
const LOOK_FOR_GONE: Duration = Duration::from_millis(2);
/// A phase without any result for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a prewarmed analyzer is kept for frames that don't come: as long again as they were announced ahead.
const KEEP_WARM: Duration = Duration::from_millis(250);

/// The two phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Prewarming is off: a burst's first frame activates the analyzer.
    Cold,
    /// Prewarming is on.
    Warm,
}

/// What both phases run with.
pub(crate) struct Phase<'a> {
    pub(crate) target: &'a Target,
    pub(crate) plan: &'a Plan,
    pub(crate) belt: Arc<Belt>,
    pub(crate) model: Option<PathBuf>,
    pub(crate) bar: ProgressBar,
}

/// What a phase measured.
pub(crate) struct Outcome {
    /// The silo's very first activation, which opens the device and compiles the network for it.
    pub(crate) first_activation: Duration,
    /// The share of held-out digits that the network names rightly on its device.
    pub(crate) accuracy: f64,
    pub(crate) backend: Backend,
    pub(crate) frames: u64,
    pub(crate) digits_seen: u64,
    /// Against the truth, where that is known.
    pub(crate) score: Option<Score>,
    /// First frames of bursts that a motion announced.
    pub(crate) announced: LatencyHistogram,
    /// First frames of the others.
    pub(crate) unannounced: LatencyHistogram,
    /// All but the first frames.
    pub(crate) steady: LatencyHistogram,
    pub(crate) prewarm: PrewarmScore,
    pub(crate) meter: DeviceMeter,
    /// Still leased when every analyzer was gone.
    pub(crate) leased_at_end: ByteSize,
}

impl Phase<'_> {
    /// Runs the phase on the current tokio runtime. Dropping the future stops its silo.
    pub(crate) async fn run(&self, stage: Stage) -> anyhow::Result<Outcome> {
        self.bar.set_message(match stage {
            Stage::Cold => "without prewarming",
            Stage::Warm => "with prewarming",
        });
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
        let (sender, sightings) = mpsc::channel(SIGHTINGS);
        let silo = self.silo(stage, clock.clone(), sender)?;
        let grid = silo.grid();
        let mut outcome = self.first_activation(&silo).await?;
        let before = grid.prewarm_score();
        let mut collector = Collector { phase: self, silo: &silo, sightings, outcome: &mut outcome };
        for round in 0..self.plan.rounds.len() {
            collector.round(round, &clock).await?;
        }
        outcome.prewarm = since(grid.prewarm_score(), before);
        outcome.leased_at_end = silo.devices().usage().iter().map(|books| books.granted).sum();
        drop(grid);
        silo.shutdown(PATIENCE).await;
        Ok(outcome)
    }

    fn silo(
        &self,
        stage: Stage,
        clock: Arc<dyn Clock>,
        sightings: mpsc::Sender<Sighting>,
    ) -> anyhow::Result<Silo> {
        let (width, height) = self.belt.frame_size();
        let mut options = AnalyzerOptions::default()
            .api(self.target.api)
            .device_required(self.target.required && !self.target.inventory.devices.is_empty())
            .frame_size(width, height)
            .clock(clock.clone())
            .sightings(sightings);
        if let Some(model) = &self.model {
            options = options.model(model);
        }
        let silo = Silo::builder()
            .inventory(self.target.inventory.clone())
            .devices(self.target.options.clone())
            .device_api(self.target.api)
            .clock(clock)
            .prewarm(stage == Stage::Warm)
            .prewarm_budget(self.budget())
            .host::<MotionLog>()
            .host_with(VisionAnalyzer::with(options))
            .start()?;
        Ok(silo)
    }

    /// Every camera's analyzer may be warm at once: with no device they hold main memory instead.
    fn budget(&self) -> PrewarmBudget {
        let each = VisionAnalyzer::SPEC.gpu.map_or(0, |need| need.vram.as_u64());
        let max_bytes = ByteSize::bytes(each.saturating_mul(u64::from(self.plan.cameras)));
        PrewarmBudget { max_bytes, max_actors: self.plan.cameras as usize, ttl: KEEP_WARM }
    }

    /// Opens the device and compiles for it, which all later activations share, and measures the network there.
    async fn first_activation(&self, silo: &Silo) -> anyhow::Result<Outcome> {
        const KEY: &str = "first";
        let grid = silo.grid();
        let analyzer = grid.actor::<VisionAnalyzer>(KEY);
        let begun = Instant::now();
        let (backend, _) = analyzer.place().await?;
        let first_activation = begun.elapsed();
        let accuracy = analyzer.accuracy().await?;
        drop(analyzer);
        grid.deactivate::<VisionAnalyzer>(KEY);
        all_gone(&grid).await?;
        Ok(Outcome {
            first_activation,
            accuracy,
            backend,
            frames: 0,
            digits_seen: 0,
            score: None,
            announced: LatencyHistogram::new(),
            unannounced: LatencyHistogram::new(),
            steady: LatencyHistogram::new(),
            prewarm: PrewarmScore::default(),
            meter: DeviceMeter::new(silo.inventory()),
            leased_at_end: ByteSize::ZERO,
        })
    }
}

/// Runs rounds and takes in what the analyzers see.
struct Collector<'a> {
    phase: &'a Phase<'a>,
    silo: &'a Silo,
    sightings: mpsc::Receiver<Sighting>,
    outcome: &'a mut Outcome,
}

impl Collector<'_> {
    async fn round(&mut self, round: usize, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
        let plan = self.phase.plan;
        let grid = self.silo.grid();
        let visits = &plan.rounds[round];
        let mut cameras = JoinSet::new();
        let begun = Moment::now();
        for &visit in visits {
            let camera = Camera {
                grid: grid.clone(),
                belt: self.phase.belt.clone(),
                clock: clock.clone(),
                begun,
                first_number: round as u64 * u64::from(plan.frames),
                frames: plan.frames,
                pace: plan.pace,
            };
            cameras.spawn(camera.visit(visit));
        }
        let bursts = visits.iter().filter(|visit| visit.frames_at.is_some());
        let mut open = bursts.clone().count() as u64 * u64::from(plan.frames);
        let mut books = interval(LOOK_AT_BOOKS);
        books.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_result = Instant::now();
        while open > 0 {
            tokio::select! {
                Some(sighting) = self.sightings.recv() => {
                    self.take(sighting)?;
                    open -= 1;
                    last_result = Instant::now();
                }
                Some(ended) = cameras.join_next() => ended.context("a camera's task failed")??,
                _ = books.tick() => {
                    self.outcome.meter.observe(&self.silo.devices().usage());
                    if last_result.elapsed() > PATIENCE {
                        return Err(self.stalled(open).await);
                    }
                }
            }
        }
        while let Some(ended) = cameras.join_next().await {
            ended.context("a camera's task failed")??;
        }
        for visit in bursts {
            grid.deactivate::<VisionAnalyzer>(camera_key(visit.camera));
        }
        all_gone(&grid).await
    }

    fn take(&mut self, sighting: Sighting) -> anyhow::Result<()> {
        let Sighting { camera, number, result, latency, busy, device } = sighting;
        let plan = self.phase.plan;
        let analysis =
            result.with_context(|| format!("frame {number} of camera {camera} was not analysed"))?;
        let latency = latency.context("a frame came without its time of capture")?;
        let (round, index) = (number / u64::from(plan.frames), number % u64::from(plan.frames));
        let announced = plan.rounds[round as usize][camera as usize].motion_at.is_some();
        let outcome = &mut *self.outcome;
        match (index, announced) {
            (0, true) => outcome.announced.record(latency),
            (0, false) => outcome.unannounced.record(latency),
            _ => outcome.steady.record(latency),
        }
        if index == 0 {
            // The number of leases only changes with activations.
            outcome.meter.observe(&self.silo.devices().usage());
        }
        outcome.meter.record(device.as_ref(), backend_name(analysis.backend), busy);
        outcome.frames += 1;
        outcome.digits_seen += analysis.digits.len() as u64;
        if let Some(truth) = self.phase.belt.truth(camera, number) {
            *outcome.score.get_or_insert_default() += Score::of(&analysis, truth);
        }
        self.phase.bar.inc(1);
        Ok(())
    }

    /// Frames don't come back: an analyzer that can't be activated says why when it is asked.
    async fn stalled(&self, open: u64) -> anyhow::Error {
        let grid = self.silo.grid();
        let asked = grid.actor::<VisionAnalyzer>(camera_key(0)).place().timeout(PATIENCE).await;
        let stalled = anyhow::anyhow!(
            "{open} frames were not analysed within {} s; try a smaller --cameras or --frames",
            PATIENCE.as_secs()
        );
        match asked {
            Ok(_) => stalled,
            Err(cause) => anyhow::Error::from(cause).context(stalled.to_string()),
        }
    }
}

/// One camera and its motion sensor, for one visit.
struct Camera {
    grid: Grid,
    belt: Arc<Belt>,
    clock: Arc<dyn Clock>,
    begun: Moment,
    first_number: u64,
    frames: u32,
    pace: Duration,
}

impl Camera {
    async fn visit(self, visit: Visit) -> anyhow::Result<()> {
        let key = camera_key(visit.camera);
        if let Some(at) = visit.motion_at {
            sleep_until(self.begun + at).await;
            let motion = Motion { camera: visit.camera, at: self.clock.now() };
            self.publish(MOTION, &key, motion).await?;
        }
        let Some(at) = visit.frames_at else { return Ok(()) };
        for index in 0..self.frames {
            sleep_until(self.begun + at + self.pace * index).await;
            let frame = self.belt.frame(visit.camera, self.first_number + u64::from(index));
            let frame = frame.captured_at(self.clock.now());
            self.publish(FRAMES, &key, frame).await?;
        }
        Ok(())
    }

    async fn publish<T: Clone + Send + 'static>(
        &self,
        namespace: &str,
        key: &str,
        item: T,
    ) -> anyhow::Result<()> {
        let stream = StreamId::new(namespace, key)?;
        self.grid.publish(&stream, item).await.map_err(|error: PublishError| error.into()).map(|_| ())
    }
}

/// Waits until no analyzer is active, nor on its way there or back.
async fn all_gone(grid: &Grid) -> anyhow::Result<()> {
    let gone = async {
        loop {
            let census = grid.census();
            let logs = census.types.iter().filter(|one| one.name == MotionLog::SPEC.name);
            if census.activations == logs.map(|one| one.active).sum::<usize>() {
                return;
            }
            sleep(LOOK_FOR_GONE).await;
        }
    };
    if timeout(PATIENCE, gone).await.is_err() {
        bail!("analyzers were still active {} s after they were told to deactivate", PATIENCE.as_secs());
    }
    Ok(())
}

/// What was scored after `before`.
fn since(now: PrewarmScore, before: PrewarmScore) -> PrewarmScore {
    PrewarmScore {
        hits: now.hits - before.hits,
        misses: now.misses - before.misses,
        late: now.late - before.late,
        wasted: now.wasted - before.wasted,
        released: now.released - before.released,
        warm_seconds_bytes: now.warm_seconds_bytes - before.warm_seconds_bytes,
    }
}

fn camera_key(camera: u32) -> String {
    format!("cam-{camera}")
}

fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Cpu => "cpu",
        Backend::Wgpu => "wgpu",
        Backend::Cuda => "cuda",
    }
}
