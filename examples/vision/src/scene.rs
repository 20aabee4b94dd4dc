//! Camera frames drawn from a seed: a belt moves past each camera and carries handwritten digits, specks and
//! scratches, under a light that changes, with the camera's noise. Each frame knows what it shows.
//!
//! A frame depends on (seed, camera, number) alone, so any frame can be drawn without those before it.

use crate::data::{Digit, FULL_INK};
use crate::frame::{BBox, Frame};
use crate::infer::SIDE;
use crate::random::Random;

/// Pixels in a row of a frame.
pub const WIDTH: u32 = 160;
/// Rows of a frame.
pub const HEIGHT: u32 = 96;
/// Pixels that the belt moves from one frame to the next.
pub const SPEED: u64 = 3;

/// The belt is divided into slots of this many pixels, one item at most in each lane's slot. With the largest
/// digit and the largest offset, neighbours stay 6 pixels apart.
const SLOT: i64 = 32;
/// The middle rows of the two lanes.
const LANES: [f32; 2] = [26.0, 70.0];
/// An item lies at most this far from the middle of its slot, along and across the belt.
const OFFSET: (f32, f32) = (5.0, 11.0);
/// Digits are drawn at 1 to 2 times their 8 pixels.
const SCALE: (f32, f32) = (1.0, 2.0);
/// Grey levels of ink above the belt.
const CONTRAST: (f32, f32) = (85.0, 150.0);
/// Deviation of the camera's noise, in grey levels.
const NOISE: f32 = 4.0;
/// Seams lie across the belt at this distance, in pixels.
const SEAM: i64 = 56;
/// Share of slots with a digit, and of slots with a digit or some dirt.
const DIGIT_SHARE: f32 = 0.55;
const ITEM_SHARE: f32 = 0.75;
/// Ink below this share of a digit's full ink doesn't count as part of its box.
const BOX_INK: f32 = 0.3;
/// Ink below this share can't be told from noise, so a digit is whole without it.
const FAINT_INK: f32 = 0.1;

/// A digit that a frame shows in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// 0 to 9.
    pub label: u8,
    /// Around its ink.
    pub bbox: BBox,
}

/// A frame and what it shows.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What the camera sees.
    pub frame: Frame,
    /// Every digit that lies wholly within the frame, from the left.
    pub truth: Vec<Truth>,
}

/// A belt that carries some digits, past any number of cameras.
#[derive(Debug, Clone, Copy)]
pub struct Conveyor<'a> {
    digits: &'a [Digit],
    seed: u64,
}

impl<'a> Conveyor<'a> {
    /// A belt that carries samples of `digits`; with no digits it carries dirt alone.
    pub fn new(digits: &'a [Digit], seed: u64) -> Self {
        Self { digits, seed }
    }

    /// The frame `number` of `camera`: [`WIDTH`] x [`HEIGHT`].
    pub fn scene(&self, camera: u32, number: u64) -> Scene {
        // The belt runs long enough for years of frames; wrapping keeps odd numbers from overflowing.
        let start = (number.wrapping_mul(SPEED) % (1 << 40)) as i64;
        let mut canvas = Canvas::new(start, number);
        let mut truth = Vec::new();
        for slot in start.div_euclid(SLOT) - 1..=(start + i64::from(WIDTH)).div_euclid(SLOT) + 1 {
            for (lane, middle) in LANES.into_iter().enumerate() {
                let mut random = Random::keyed(&[self.seed, u64::from(camera), lane as u64, slot as u64]);
                let column = (slot * SLOT - start) as f32 + SLOT as f32 / 2.0;
                let centre =
                    (column + random.range(-OFFSET.0, OFFSET.0), middle + random.range(-OFFSET.1, OFFSET.1));
                let kind = random.unit();
                if kind < DIGIT_SHARE && !self.digits.is_empty() {
                    let digit = &self.digits[random.below(self.digits.len())];
                    let scale = random.range(SCALE.0, SCALE.1);
                    let contrast = random.range(CONTRAST.0, CONTRAST.1);
                    if let Some(bbox) = canvas.digit(digit, centre, scale, contrast) {
                        truth.push(Truth { label: digit.label, bbox });
                    }
                } else if kind < ITEM_SHARE {
                    canvas.dirt(centre, &mut random);
                }
            }
        }
        let mut random = Random::keyed(&[self.seed, u64::from(camera), u64::MAX, number]);
        let pixels = canvas.develop(&mut random);
        truth.sort_by_key(|truth| (truth.bbox.left, truth.bbox.top));
        let frame =
            Frame::new(camera, number, WIDTH, HEIGHT, pixels).expect("the canvas has the frame's size");
        Scene { frame, truth }
    }
}

/// Light that comes from one pixel, in grey levels, before noise.
struct Canvas {
    levels: Vec<f32>,
}

impl Canvas {
    /// The empty belt.
    fn new(start: i64, number: u64) -> Self {
        // The light comes from one side, which wanders slowly, and flickers a little.
        let phase = (number % 4_096) as f32;
        let tilt = 18.0 * (phase * 0.021).sin();
        let light = 68.0 + 9.0 * (phase * 0.37).sin() + 12.0 * (phase * 0.013).cos();
        let mut levels = Vec::with_capacity((WIDTH * HEIGHT) as usize);
        for row in 0..HEIGHT {
            // Darker towards the belt's edges.
            let across = (row as f32 / HEIGHT as f32 - 0.5).abs();
            for column in 0..WIDTH {
                let along = column as f32 / WIDTH as f32 - 0.5;
                let seam = if (start + i64::from(column)).rem_euclid(SEAM) < 2 { -9.0 } else { 0.0 };
                levels.push(light + tilt * along - 28.0 * across * across + seam);
            }
        }
        Self { levels }
    }

    /// Draws a digit and says where its ink is, or `None` where it touches the frame's edge.
    fn digit(&mut self, digit: &Digit, centre: (f32, f32), scale: f32, contrast: f32) -> Option<BBox> {
        let side = SIDE as f32 * scale;
        let (left, top) = (centre.0 - side / 2.0, centre.1 - side / 2.0);
        let mut bbox: Option<BBox> = None;
        let mut whole = true;
        for row in (top.floor() as i64 - 1)..=(top + side).ceil() as i64 + 1 {
            for column in (left.floor() as i64 - 1)..=(left + side).ceil() as i64 + 1 {
                let x = (column as f32 + 0.5 - left) / scale - 0.5;
                let y = (row as f32 + 0.5 - top) / scale - 0.5;
                let ink = sample(digit, x, y);
                if ink <= 0.0 {
                    continue;
                }
                let inside =
                    (1..i64::from(WIDTH) - 1).contains(&column) && (1..i64::from(HEIGHT) - 1).contains(&row);
                whole &= inside || ink < FAINT_INK;
                if ink > BOX_INK {
                    let pixel = BBox::pixel(column.max(0) as u32, row.max(0) as u32);
                    bbox = Some(bbox.map_or(pixel, |bbox| bbox.union(&pixel)));
                }
                self.add(column, row, ink * contrast);
            }
        }
        bbox.filter(|_| whole)
    }

    /// A speck or a scratch: smaller or thinner than any digit.
    fn dirt(&mut self, centre: (f32, f32), random: &mut Random) {
        let contrast = random.range(30.0, 110.0);
        let (mut x, mut y) = centre;
        let (dx, dy) = (random.range(-1.0, 1.0), random.range(-1.0, 1.0));
        for _ in 0..1 + random.below(6) {
            self.add(x as i64, y as i64, contrast);
            self.add(x as i64 + 1, y as i64, contrast * 0.5);
            x += dx;
            y += dy;
        }
    }

    fn add(&mut self, column: i64, row: i64, light: f32) {
        if (0..i64::from(WIDTH)).contains(&column) && (0..i64::from(HEIGHT)).contains(&row) {
            self.levels[row as usize * WIDTH as usize + column as usize] += light;
        }
    }

    fn develop(self, random: &mut Random) -> Vec<u8> {
        // The cast saturates: brighter than white is white.
        self.levels.into_iter().map(|level| (level + NOISE * random.normal()).round() as u8).collect()
    }
}

/// A digit's ink at a place between its pixels, 0 to 1, by bilinear interpolation; paper all around it.
fn sample(digit: &Digit, x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let (along, down) = (x - column, y - row);
    let ink = |column: f32, row: f32| {
        let sides = 0.0..SIDE as f32;
        if sides.contains(&column) && sides.contains(&row) {
            f32::from(digit.pixels[row as usize * SIDE + column as usize]) / f32::from(FULL_INK)
        } else {
            0.0
        }
    };
    let upper = ink(column, row) * (1.0 - along) + ink(column + 1.0, row) * along;
    let lower = ink(column, row + 1.0) * (1.0 - along) + ink(column + 1.0, row + 1.0) * along;
    upper * (1.0 - down) + lower * down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Digits;

    #[test]
    fn a_frame_depends_on_seed_camera_and_number_alone() {
        let digits = Digits::load().expect("data");
        let belt = Conveyor::new(digits.held_out(), 1);
        let (first, again) = (belt.scene(2, 30), Conveyor::new(digits.held_out(), 1).scene(2, 30));
        assert_eq!(first.frame, again.frame);
        assert_eq!(first.truth, again.truth);
        assert_ne!(first.frame.pixels(), belt.scene(3, 30).frame.pixels());
        assert_ne!(first.frame.pixels(), belt.scene(2, 31).frame.pixels());
        assert_ne!(first.frame.pixels(), Conveyor::new(digits.held_out(), 2).scene(2, 30).frame.pixels());
    }

    #[test]
    fn digits_move_with_the_belt_and_keep_their_label() {
        let digits = Digits::load().expect("data");
        let belt = Conveyor::new(digits.held_out(), 1);
        let (now, next) = (belt.scene(0, 100), belt.scene(0, 101));
        let mut followed = 0;
        for truth in &now.truth {
            let moved = BBox { left: truth.bbox.left.saturating_sub(SPEED as u32), ..truth.bbox };
            followed += usize::from(next.truth.contains(&Truth { bbox: moved, ..*truth }));
        }
        assert!(followed + 2 >= now.truth.len() && followed >= 2, "{followed} of {}", now.truth.len());
    }

    #[test]
    fn truth_lies_within_the_frame_and_apart() {
        let digits = Digits::load().expect("data");
        let belt = Conveyor::new(digits.training(), 7);
        let mut seen = 0;
        for number in 0..100 {
            let scene = belt.scene(0, number * 50);
            seen += scene.truth.len();
            for (index, truth) in scene.truth.iter().enumerate() {
                assert!(truth.bbox.left >= 1 && truth.bbox.right() < WIDTH, "{truth:?}");
                assert!(truth.bbox.top >= 1 && truth.bbox.bottom() < HEIGHT, "{truth:?}");
                assert!(scene.truth[..index].iter().all(|other| other.bbox.gap(&truth.bbox) >= 4));
            }
        }
        assert!((300..900).contains(&seen), "{seen} digits in 100 frames");
    }

    #[test]
    fn odd_numbers_and_no_digits_still_make_a_frame() {
        let digits = Digits::load().expect("data");
        Conveyor::new(digits.held_out(), u64::MAX).scene(u32::MAX, u64::MAX);
        assert!(Conveyor::new(&[], 1).scene(0, 0).truth.is_empty());
    }
}
