//! The actor that watches one camera.
//!
//! Its key is the camera's: frames of the stream `cameras/frames/cam-7` go to the analyzer `cam-7`, and an event
//! on `sensors/motion/cam-7` warms that analyzer some 200 ms before they come.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quark::base::{Clock, MonotonicClock};
use quark::devices::inventory::DeviceId;
use quark::devices::lease::DeviceLease;
use quark::placement::Api;
use quark::prelude::*;
use quark::{DeviceAbsent, runtime::actor::HookError};
use tokio::sync::mpsc;

use crate::analyze::{Analysis, Analyzer, accuracy};
use crate::data::{DataError, Digits};
use crate::detect::MAX_DETECTIONS;
use crate::frame::Frame;
use crate::infer::cpu::CpuClassifier;
use crate::infer::{Backend, Classifier, InferenceError};
use crate::leased::{PlaceError, place};
use crate::model::{ModelError, Weights};
use crate::scene::{HEIGHT, WIDTH};

/// The stream namespace of the cameras' frames; items are [`Frame`]s.
pub const FRAMES: &str = "cameras/frames";
/// The stream namespace of the motion sensors' events; items are [`Motion`]s.
pub const MOTION: &str = "sensors/motion";

/// Finds and names the digits in one camera's frames.
///
/// Its lease is a few times what the network's own buffers take: drivers round small buffers up.
#[derive(Actor)]
#[actor(
    name = "vision.analyzer",
    idle = "10m",
    factory,
    gpu(vram = "4 MiB", numa = "local", software, optional),
    prewarm(stream = "sensors/motion", lead = "200ms", confidence = 0.8)
)]
pub struct VisionAnalyzer {
    options: Arc<AnalyzerOptions>,
    analyzer: Option<Analyzer>,
    lease: Option<Arc<DeviceLease>>,
}

#[methods]
impl VisionAnalyzer {
    /// Reads the weights, builds the network on the leased device, or on the processor where there is none, and
    /// runs it once. What is slow the first time is over when this returns.
    #[on_activate]
    async fn load(&mut self, cx: &Cx) -> Result<(), LoadError> {
        let options = self.options.clone();
        let weights = options.weights()?;
        let classifier: Box<dyn Classifier> = match cx.device() {
            Ok(lease) => {
                let placed = place(&lease, options.api, &weights, MAX_DETECTIONS)?;
                self.lease = Some(lease);
                placed
            }
            Err(absent) if options.device_required => return Err(absent.into()),
            Err(_) => Box::new(CpuClassifier::new(weights)),
        };
        let mut analyzer = Analyzer::new(classifier);
        analyzer.warm_up(options.width, options.height)?;
        self.analyzer = Some(analyzer);
        Ok(())
    }

    /// The digits in a frame.
    pub async fn analyze(&mut self, frame: Frame) -> Result<Analysis, VisionError> {
        if let Some(lease) = &self.lease {
            lease.touch();
        }
        Ok(self.loaded()?.analyze(&frame)?)
    }

    /// The share of the held-out digits that this analyzer's network names rightly on its device, 0 to 1.
    pub async fn accuracy(&mut self) -> Result<f64, VisionError> {
        let digits = Digits::load()?;
        Ok(accuracy(self.loaded()?.classifier(), digits.held_out())?)
    }

    /// What runs the network, and on which device; `None` for the processor.
    pub async fn place(&mut self) -> Result<(Backend, Option<DeviceId>), VisionError> {
        let device = self.device_id();
        Ok((self.loaded()?.backend(), device))
    }

    /// A frame from the actor's camera; what it shows goes to the [`AnalyzerOptions::sightings`].
    #[on_stream("cameras/frames")]
    async fn frame(&mut self, frame: Frame) {
        let begun = Instant::now();
        let (camera, number, captured) = (frame.camera(), frame.number(), frame.captured());
        let result = self.analyze(frame).await;
        let busy = begun.elapsed();
        let latency = captured.map(|captured| self.options.clock.now().saturating_sub(captured));
        let device = self.device_id();
        if let Some(sightings) = &self.options.sightings {
            let sighting = Sighting { camera, number, result, latency, busy, device };
            // Nobody wants them any more: the program is about to end.
            let _ = sightings.send(sighting).await;
        }
    }

    fn loaded(&mut self) -> Result<&mut Analyzer, VisionError> {
        self.analyzer.as_mut().ok_or(VisionError::NotLoaded)
    }

    fn device_id(&self) -> Option<DeviceId> {
        self.lease.as_ref().map(|lease| lease.device().id.clone())
    }
}

impl VisionAnalyzer {
    /// What a silo makes analyzers with: `Silo::builder().host_with(VisionAnalyzer::with(options))`.
    pub fn with(
        options: AnalyzerOptions,
    ) -> impl Fn(&Key) -> Result<Self, HookError> + Send + Sync + 'static {
        let options = Arc::new(options);
        move |_| Ok(Self { options: options.clone(), analyzer: None, lease: None })
    }
}

/// What analyzers are told by the program that hosts them.
#[derive(Clone)]
pub struct AnalyzerOptions {
    model: Option<PathBuf>,
    api: Api,
    device_required: bool,
    width: u32,
    height: u32,
    clock: Arc<dyn Clock>,
    sightings: Option<mpsc::Sender<Sighting>>,
}

impl Default for AnalyzerOptions {
    /// The trained network, any device or none, frames of the drawn scenes' size, no reader.
    fn default() -> Self {
        Self {
            model: None,
            api: Api::Any,
            device_required: false,
            width: WIDTH,
            height: HEIGHT,
            clock: Arc::new(MonotonicClock::new()),
            sightings: None,
        }
    }
}

impl AnalyzerOptions {
    /// Reads the weights from this safetensors file at each activation, instead of the committed ones.
    pub fn model(mut self, file: impl Into<PathBuf>) -> Self {
        self.model = Some(file.into());
        self
    }

    /// The library through which the network runs; tell the silo's builder the same.
    pub fn api(mut self, api: Api) -> Self {
        self.api = api;
        self
    }

    /// Whether an analyzer without a device is refused instead of running on the processor.
    pub fn device_required(mut self, required: bool) -> Self {
        self.device_required = required;
        self
    }

    /// The frames' size, which working memory is made for when an analyzer loads. Others work too.
    pub fn frame_size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// The clock that [`Frame::captured_at`] is read on.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where results of stream frames go. While the channel is full, its analyzers wait.
    pub fn sightings(mut self, sightings: mpsc::Sender<Sighting>) -> Self {
        self.sightings = Some(sightings);
        self
    }

    fn weights(&self) -> Result<Weights, ModelError> {
        match &self.model {
            Some(file) => Weights::load(file),
            None => Weights::trained(),
        }
    }
}

/// What became of one frame of a stream.
#[derive(Debug)]
pub struct Sighting {
    /// The frame's camera.
    pub camera: u32,
    /// The frame's number.
    pub number: u64,
    /// What it shows.
    pub result: Result<Analysis, VisionError>,
    /// From its capture to its result, if it said when it was captured.
    pub latency: Option<Duration>,
    /// The part of that which its turn took.
    pub busy: Duration,
    /// Where the network ran; `None` for the processor.
    pub device: Option<DeviceId>,
}

/// A motion sensor saw something in front of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Motion {
    /// The camera.
    pub camera: u32,
    /// When, on the sender's clock.
    pub at: Duration,
}

/// Remembers what one motion sensor reported.
#[derive(Actor)]
#[actor(name = "vision.motion-log")]
pub struct MotionLog {
    events: u64,
}

#[methods]
impl MotionLog {
    #[on_stream("sensors/motion")]
    async fn motion(&mut self, motion: Motion) {
        let Motion { camera: _, at: _ } = motion;
        self.events += 1;
    }

    /// Events since the actor was activated.
    pub async fn events(&self) -> u64 {
        self.events
    }
}

/// Why an analyzer was not activated. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The weights are not usable. A retry can't help before the file changes.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A device was asked for, and none fits.
    #[error("{0}; lease out more of it, or run on the processor (--device cpu)")]
    Device(#[from] DeviceAbsent),
    /// The network could not be built on the device.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The network did not run.
    #[error(transparent)]
    Network(#[from] InferenceError),
}

/// Why a frame was not analysed. The analyzer stays usable.
#[derive(Debug, thiserror::Error)]
pub enum VisionError {
    /// The network did not run.
    #[error(transparent)]
    Network(#[from] InferenceError),
    /// The digits to measure with could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The method was called on an actor that was never activated, as only a test can.
    #[error("the analyzer holds no network: call it through a silo, which loads it")]
    NotLoaded,
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
