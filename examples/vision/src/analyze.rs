//! A frame in, labelled digits out; and how well that went where the truth is known.

use serde::{Deserialize, Serialize};

use crate::detect::{Candidate, Detector, MAX_DETECTIONS};
use crate::frame::{BBox, Frame, MAX_SIDE, MIN_SIDE};
use crate::infer::{BACKGROUND, Backend, Classifier, InferenceError, Logits, PIXELS, Patch};
use crate::scene::Truth;

/// A digit counts as seen from this share of the softmax on.
const CONFIDENCE_MIN: f32 = 0.5;
/// The batch of a warm-up: about what a frame of the belt shows.
const WARM_UP_PATCHES: usize = 4;
/// A detection belongs to a digit if their boxes share this much.
const MATCH_IOU: f32 = 0.4;

/// A digit that was seen in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// 0 to 9.
    pub label: u8,
    /// The network's share for it, 0.5 to 1.
    pub confidence: f32,
    /// Around its ink.
    pub bbox: BBox,
}

/// What a frame shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The frame's camera.
    pub camera: u32,
    /// The frame's number.
    pub frame: u64,
    /// From the left; at most [`MAX_DETECTIONS`].
    pub digits: Vec<Detection>,
    /// What ran the network.
    pub backend: Backend,
}

/// Finds and names digits in frames.
pub struct Analyzer {
    detector: Detector,
    classifier: Box<dyn Classifier>,
    patches: Vec<Patch>,
}

impl Analyzer {
    /// An analyzer that names digits with `classifier`; its largest batch is [`MAX_DETECTIONS`].
    pub fn new(classifier: Box<dyn Classifier>) -> Self {
        Self { detector: Detector::new(), classifier, patches: Vec::with_capacity(MAX_DETECTIONS) }
    }

    /// The digits in `frame`. Blocks while the network runs.
    ///
    /// # Errors
    ///
    /// What the classifier reports; the analyzer stays usable.
    pub fn analyze(&mut self, frame: &Frame) -> Result<Analysis, InferenceError> {
        let candidates = self.detector.find(frame);
        self.patches.clear();
        self.patches.extend(candidates.iter().map(|candidate| candidate.patch));
        let scores = self.classifier.classify(&self.patches)?;
        let digits = candidates.iter().zip(&scores).filter_map(name).collect();
        Ok(Analysis {
            camera: frame.camera(),
            frame: frame.number(),
            digits,
            backend: self.classifier.backend(),
        })
    }

    /// Does everything once that is slow the first time: sizes the working memory for frames of that size, and
    /// runs the network. Drivers put off work until the first launch, and a camera's first frame should not pay
    /// for it; nor should another camera's frame wait behind a large batch, so it is a small one.
    ///
    /// # Errors
    ///
    /// What the classifier reports.
    pub fn warm_up(&mut self, width: u32, height: u32) -> Result<(), InferenceError> {
        let (width, height) = (width.clamp(MIN_SIDE, MAX_SIDE), height.clamp(MIN_SIDE, MAX_SIDE));
        let blank = vec![0; width as usize * height as usize];
        if let Ok(frame) = Frame::new(0, 0, width, height, blank) {
            self.detector.find(&frame);
        }
        let patches = [Patch { pixels: [0.0; PIXELS] }; WARM_UP_PATCHES];
        self.classifier.classify(&patches).map(|_| ())
    }

    /// What runs the network.
    pub fn backend(&self) -> Backend {
        self.classifier.backend()
    }

    /// What names the digits, for measurements of the network alone.
    pub fn classifier(&mut self) -> &mut dyn Classifier {
        self.classifier.as_mut()
    }
}

impl std::fmt::Debug for Analyzer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Analyzer").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

fn name((candidate, scores): (&Candidate, &Logits)) -> Option<Detection> {
    let (class, confidence) = scores.best();
    (class != BACKGROUND && confidence >= CONFIDENCE_MIN).then_some(Detection {
        label: class as u8,
        confidence,
        bbox: candidate.bbox,
    })
}

/// How many digits were seen, and how many rightly. Scores of several frames add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Digits that the frames show in full.
    pub shown: u64,
    /// Those of them that were found and named rightly.
    pub right: u64,
    /// Those of them that were found and named wrongly.
    pub wrong: u64,
    /// Detections where no digit is shown in full.
    pub phantoms: u64,
}

impl Score {
    /// Holds an analysis against what the frame shows. Each digit is found once at most.
    pub fn of(analysis: &Analysis, truth: &[Truth]) -> Self {
        let mut score = Self { shown: truth.len() as u64, ..Self::default() };
        let mut open: Vec<&Truth> = truth.iter().collect();
        for detection in &analysis.digits {
            let overlap = |truth: &Truth| truth.bbox.iou(&detection.bbox);
            let best = (0..open.len()).max_by(|&a, &b| overlap(open[a]).total_cmp(&overlap(open[b])));
            match best.filter(|&best| overlap(open[best]) >= MATCH_IOU) {
                Some(best) if open.swap_remove(best).label == detection.label => score.right += 1,
                Some(_) => score.wrong += 1,
                None => score.phantoms += 1,
            }
        }
        score
    }

    /// Digits named rightly, as a share of those shown: 0 to 1, and 1 where none was shown.
    pub fn recall(&self) -> f64 {
        if self.shown == 0 { 1.0 } else { self.right as f64 / self.shown as f64 }
    }

    /// Detections that are right, as a share of all: 0 to 1, and 1 where there was none.
    pub fn precision(&self) -> f64 {
        let all = self.right + self.wrong + self.phantoms;
        if all == 0 { 1.0 } else { self.right as f64 / all as f64 }
    }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.shown += other.shown;
        self.right += other.right;
        self.wrong += other.wrong;
        self.phantoms += other.phantoms;
    }
}

/// The share of `digits` that the classifier names rightly, 0 to 1: the network's accuracy, apart from finding
/// digits in frames. The background doesn't count as an answer here, since every row holds a digit.
///
/// # Errors
///
/// What the classifier reports.
pub fn accuracy(
    classifier: &mut dyn Classifier,
    digits: &[crate::data::Digit],
) -> Result<f64, InferenceError> {
    let patches: Vec<Patch> = digits.iter().map(|digit| digit.patch()).collect();
    let scores = classifier.classify(&patches)?;
    let right =
        digits.iter().zip(&scores).filter(|(digit, scores)| digit.label == scores.best_digit()).count();
    Ok(right as f64 / digits.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Digits;
    use crate::infer::cpu::CpuClassifier;
    use crate::model::Weights;
    use crate::scene::Conveyor;

    fn trained() -> CpuClassifier {
        CpuClassifier::new(Weights::trained().expect("the committed weights"))
    }

    #[test]
    fn held_out_accuracy_is_95_percent_or_more() {
        let digits = Digits::load().expect("data");
        let measured = accuracy(&mut trained(), digits.held_out()).expect("the processor runs it");
        assert!(measured >= 0.95, "{measured}");
        let noted = Weights::trained().expect("the committed weights").training().held_out_accuracy;
        assert!((measured - noted).abs() < 1e-6, "measured {measured}, the file says {noted}");
    }

    #[test]
    fn held_out_digits_are_seen_and_named_in_scenes() {
        let digits = Digits::load().expect("data");
        let mut analyzer = Analyzer::new(Box::new(trained()));
        let mut score = Score::default();
        for camera in 0..4 {
            let belt = Conveyor::new(digits.held_out(), 20_261_120);
            for number in 0..30 {
                let scene = belt.scene(camera, number * 60);
                let analysis = analyzer.analyze(&scene.frame).expect("the processor runs it");
                assert_eq!((analysis.camera, analysis.frame), (camera, number * 60));
                score += Score::of(&analysis, &scene.truth);
            }
        }
        assert!(score.shown > 400, "{score:?}");
        assert!(score.recall() >= 0.90, "recall {} {score:?}", score.recall());
        assert!(score.precision() >= 0.90, "precision {} {score:?}", score.precision());
    }

    /// Prints the figures of the README; it asserts none, since other work may share the machine.
    #[test]
    #[ignore = "a measurement: run it with --release --run-ignored all --no-capture"]
    fn measure_scenes() {
        use std::io::Write as _;
        use std::time::Instant;
        let digits = Digits::load().expect("data");
        let mut analyzer = Analyzer::new(Box::new(trained()));
        let mut detector = Detector::new();
        let (mut drawing, mut finding, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let (mut score, mut found) = (Score::default(), 0);
        for camera in 0..8 {
            let belt = Conveyor::new(digits.held_out(), 1);
            for number in 0..250 {
                let start = Instant::now();
                let scene = belt.scene(camera, number * 60);
                drawing.push(start.elapsed());
                let start = Instant::now();
                let candidates = detector.find(&scene.frame);
                finding.push(start.elapsed());
                let start = Instant::now();
                let analysis = analyzer.analyze(&scene.frame).expect("the processor runs it");
                all.push(start.elapsed());
                score += Score::of(&analysis, &scene.truth);
                let has_box = |truth: &&Truth| {
                    candidates.iter().any(|candidate| candidate.bbox.iou(&truth.bbox) >= MATCH_IOU)
                };
                found += scene.truth.iter().filter(has_box).count();
            }
        }
        let mut out = std::io::stderr();
        for (what, times) in
            [("draw", &mut drawing), ("find", &mut finding), ("analyze on the cpu", &mut all)]
        {
            times.sort();
            writeln!(out, "{what}: p50 {:?}, p99 {:?}", times[1_000], times[1_980]).expect("stderr");
        }
        writeln!(
            out,
            "{score:?}, boxes found {found}, recall {:.4}, precision {:.4}",
            score.recall(),
            score.precision()
        )
        .expect("stderr");
    }

    #[test]
    fn warming_up_takes_any_size_and_leaves_results_alone() {
        fn crosses<T: Send + 'static>() {}
        crosses::<Analyzer>();
        crosses::<Frame>();
        crosses::<Analysis>();
        let digits = Digits::load().expect("data");
        let scene = Conveyor::new(digits.held_out(), 3).scene(0, 500);
        let mut analyzer = Analyzer::new(Box::new(trained()));
        let cold = analyzer.analyze(&scene.frame);
        for (width, height) in [(0, 0), (crate::scene::WIDTH, crate::scene::HEIGHT)] {
            analyzer.warm_up(width, height).expect("the processor runs it");
        }
        assert_eq!(analyzer.analyze(&scene.frame), cold);
    }

    #[test]
    fn scores_tell_right_wrong_and_phantom_apart() {
        let at = |left| BBox { left, top: 10, width: 8, height: 10 };
        let seen = |label, left| Detection { label, confidence: 0.9, bbox: at(left) };
        let analysis = Analysis {
            camera: 0,
            frame: 0,
            digits: vec![seen(3, 10), seen(4, 40), seen(5, 80), seen(3, 11)],
            backend: Backend::Cpu,
        };
        let truth = [3, 5, 6].into_iter().zip([10, 41, 120]);
        let truth: Vec<Truth> = truth.map(|(label, left)| Truth { label, bbox: at(left) }).collect();
        let score = Score::of(&analysis, &truth);
        assert_eq!(score, Score { shown: 3, right: 1, wrong: 1, phantoms: 2 });
    }
}
