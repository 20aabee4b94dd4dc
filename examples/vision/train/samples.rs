//! What the network learns from. Only training rows come in here.

use quark_vision::data::Digit;
use quark_vision::detect::Detector;
use quark_vision::infer::{BACKGROUND, PIXELS, Patch, SIDE};
use quark_vision::random::Random;
use quark_vision::scene::{Conveyor, HEIGHT, WIDTH};

/// Frames that patches are cut from, some five digits each.
const SCENES: u64 = 5_000;
/// Frames apart from one another, so that the belt has moved on by more than a frame.
const SCENE_STEP: u64 = 60;
/// Times that each row is seen in an epoch, bent differently each time.
const BENT_PER_ROW: usize = 4;
/// Patches from scenes in an epoch.
const SCENE_PATCHES: usize = 8_000;
/// Patches of noise in an epoch.
const NOISE_PATCHES: usize = 250;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) patch: Patch,
    pub(crate) class: usize,
}

pub(crate) struct Samples<'a> {
    rows: &'a [Digit],
    scenes: Vec<Sample>,
}

impl<'a> Samples<'a> {
    pub(crate) fn new(rows: &'a [Digit], seed: u64) -> Self {
        Self { rows, scenes: cut_from_scenes(rows, seed) }
    }

    pub(crate) fn scene_patches(&self) -> usize {
        self.scenes.len()
    }

    pub(crate) fn background(&self) -> usize {
        self.scenes.iter().filter(|sample| sample.class == BACKGROUND).count()
    }

    /// The samples of one pass, in random order.
    pub(crate) fn epoch(&self, random: &mut Random) -> Vec<Sample> {
        let mut samples = Vec::new();
        for row in self.rows {
            let class = usize::from(row.label);
            samples.push(Sample { patch: row.patch(), class });
            for _ in 1..BENT_PER_ROW {
                samples.push(Sample { patch: bent(&row.patch(), random), class });
            }
        }
        for _ in 0..SCENE_PATCHES.min(self.scenes.len()) {
            let mut sample = self.scenes[random.below(self.scenes.len())];
            if random.unit() < 0.5 {
                sample.patch = bent(&sample.patch, random);
            }
            samples.push(sample);
        }
        for _ in 0..NOISE_PATCHES {
            let (low, high) = (random.range(-1.0, 0.5), random.range(0.6, 1.2));
            let patch = Patch { pixels: std::array::from_fn(|_| random.range(low, high).clamp(0.0, 1.0)) };
            samples.push(Sample { patch, class: BACKGROUND });
        }
        random.shuffle(&mut samples);
        samples
    }
}

/// What the detector finds in drawn scenes, with the label of the digit that lies there, if one does.
fn cut_from_scenes(rows: &[Digit], seed: u64) -> Vec<Sample> {
    let belt = Conveyor::new(rows, seed);
    let mut detector = Detector::new();
    let mut samples = Vec::new();
    for number in 0..SCENES {
        let scene = belt.scene(0, number * SCENE_STEP);
        for candidate in detector.find(&scene.frame) {
            let bbox = candidate.bbox;
            let overlap = |label: &quark_vision::scene::Truth| label.bbox.iou(&bbox);
            let best = scene.truth.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
            let (label, share) = best.map_or((0, 0.0), |truth| (truth.label, overlap(truth)));
            let near_edge =
                bbox.left < 4 || bbox.top < 4 || bbox.right() + 4 > WIDTH || bbox.bottom() + 4 > HEIGHT;
            if share >= 0.4 {
                samples.push(Sample { patch: candidate.patch, class: label.into() });
            } else if share < 0.1 && !near_edge {
                // Near the edge it may be most of a digit, which is no fair example of background.
                samples.push(Sample { patch: candidate.patch, class: BACKGROUND });
            }
        }
    }
    samples
}

/// Turns, scales, slants and shifts a patch a little, dims it and adds noise.
fn bent(patch: &Patch, random: &mut Random) -> Patch {
    let middle = (SIDE as f32 - 1.0) / 2.0;
    let (turn, slant) = (random.range(-0.16, 0.16), random.range(-0.15, 0.15));
    let (wide, high) = (random.range(0.88, 1.15), random.range(0.88, 1.15));
    let (right, down) = (random.range(-0.8, 0.8), random.range(-0.8, 0.8));
    let (gain, noise) = (random.range(0.75, 1.1), random.range(0.0, 0.07));
    let (sin, cos) = turn.sin_cos();
    let mut pixels = [0.0; PIXELS];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let x = (index % SIDE) as f32 - middle - right;
        let y = (index / SIDE) as f32 - middle - down;
        let (x, y) = ((x * cos + y * sin) / wide + slant * y, (y * cos - x * sin) / high);
        let ink = between(patch, x + middle, y + middle);
        *pixel = (ink * gain + noise * random.normal()).clamp(0.0, 1.0);
    }
    Patch { pixels }
}

/// Bilinear interpolation, with no ink around the patch.
fn between(patch: &Patch, x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let (along, across) = (x - column, y - row);
    let ink = |column: f32, row: f32| {
        let sides = 0.0..SIDE as f32;
        if sides.contains(&column) && sides.contains(&row) {
            patch.pixels[row as usize * SIDE + column as usize]
        } else {
            0.0
        }
    };
    let upper = ink(column, row) * (1.0 - along) + ink(column + 1.0, row) * along;
    let lower = ink(column, row + 1.0) * (1.0 - along) + ink(column + 1.0, row + 1.0) * along;
    upper * (1.0 - across) + lower * across
}
