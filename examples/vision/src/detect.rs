//! Finds digits in a frame: strokes that differ from the background, gathered into boxes of a digit's size, each
//! cut out and brought to the network's 8x8 input.
//!
//! Every step is bounded by the frame's size or by a constant below, so that no picture takes long: a frame full
//! of noise costs about as much as an ordinary one.

mod background;

use background::Background;

use crate::frame::{BBox, Frame};
use crate::infer::{PIXELS, Patch, SIDE};

/// The most digits that one frame yields; of more candidates the largest are kept.
pub const MAX_DETECTIONS: usize = 32;
/// Strokes beyond this number in one frame are left out, the lowest in the frame first.
pub const MAX_STROKES: usize = 512;

/// Sides of a digit's box, in pixels. Below it is noise, above it is no digit on a belt.
const HEIGHT_MIN: u32 = 5;
const SIDE_MAX: u32 = 96;
/// Pixels of ink that a stroke needs before it counts; single bright pixels are noise.
const STROKE_PIXELS_MIN: u32 = 3;
/// Pixels of ink that a digit needs.
const DIGIT_PIXELS_MIN: u32 = 8;
/// Strokes this close together are parts of one digit, if they make a box of a digit's shape together.
const MERGE_GAP: u32 = 2;
/// A digit is at most this many times wider than high.
const WIDTH_PER_HEIGHT_MAX: f32 = 1.4;
/// Ink is at least this many grey levels from the background, however clean the picture is.
const CONTRAST_MIN: i32 = 16;
/// Ink is at least this many deviations of the noise from the background.
const CONTRAST_DEVIATIONS: f32 = 4.5;

/// A place that may hold a digit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Around its ink.
    pub bbox: BBox,
    /// What lies there, as the network takes it.
    pub patch: Patch,
}

/// Finds digits, and keeps its working memory from frame to frame.
#[derive(Debug, Default)]
pub struct Detector {
    /// Grey levels above (or below, where the ink is dark) the background; 0 where there is no ink.
    ink: Vec<i16>,
    visited: Vec<bool>,
    stack: Vec<u32>,
    background: Background,
}

/// Pixels of ink that hang together.
#[derive(Debug, Clone, Copy)]
struct Stroke {
    bbox: BBox,
    pixels: u32,
}

impl Detector {
    /// A detector with no working memory yet: about 4 bytes a pixel once it has seen a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// The candidates in `frame`, at most [`MAX_DETECTIONS`], from the left.
    pub fn find(&mut self, frame: &Frame) -> Vec<Candidate> {
        let threshold = self.lift_ink(frame);
        let mut strokes = self.strokes(frame, threshold);
        merge(&mut strokes);
        let (columns, rows) = (frame.width() as u32, frame.height() as u32);
        strokes.retain(|stroke| is_digit_sized(stroke) && is_inside(&stroke.bbox, columns, rows));
        strokes.sort_by_key(|stroke| std::cmp::Reverse((stroke.pixels, stroke.bbox.left, stroke.bbox.top)));
        strokes.truncate(MAX_DETECTIONS);
        strokes.sort_by_key(|stroke| (stroke.bbox.left, stroke.bbox.top));
        strokes
            .into_iter()
            .map(|stroke| Candidate { bbox: stroke.bbox, patch: self.cut(frame.width(), &stroke.bbox) })
            .collect()
    }

    /// Fills `ink` with the difference from the background, and says from which difference on it is ink.
    fn lift_ink(&mut self, frame: &Frame) -> i16 {
        let (width, pixels) = (frame.width(), frame.pixels());
        self.background.estimate(width, frame.height(), pixels);
        self.ink.clear();
        self.ink.reserve(pixels.len());
        for (row, line) in pixels.chunks_exact(width).enumerate() {
            let background = self.background.row(row);
            self.ink.extend(line.iter().zip(background).map(|(&pixel, &level)| i16::from(pixel) - level));
        }
        let deviation = background::deviation(&self.ink);
        let threshold = ((CONTRAST_DEVIATIONS * deviation) as i32).max(CONTRAST_MIN) as i16;
        // Ink is whatever there is more of: chalk on slate or pencil on paper.
        let (mut bright, mut dark) = (0i64, 0i64);
        for &difference in &self.ink {
            if difference > threshold {
                bright += i64::from(difference);
            } else if difference < -threshold {
                dark -= i64::from(difference);
            }
        }
        if dark > bright {
            self.ink.iter_mut().for_each(|difference| *difference = -*difference);
        }
        threshold
    }

    /// Gathers pixels of ink that touch, corners included.
    fn strokes(&mut self, frame: &Frame, threshold: i16) -> Vec<Stroke> {
        let (width, height) = (frame.width(), frame.height());
        self.visited.clear();
        self.visited.resize(self.ink.len(), false);
        let mut strokes = Vec::new();
        for start in 0..self.ink.len() {
            if self.visited[start] || self.ink[start] <= threshold {
                continue;
            }
            let mut stroke = Stroke { bbox: at(start, width), pixels: 0 };
            self.visited[start] = true;
            self.stack.push(start as u32);
            // Each pixel is pushed once at most, so the stack never outgrows the frame.
            while let Some(place) = self.stack.pop() {
                let place = place as usize;
                stroke.pixels += 1;
                stroke.bbox = stroke.bbox.union(&at(place, width));
                let (column, row) = (place % width, place / width);
                for y in row.saturating_sub(1)..(row + 2).min(height) {
                    for x in column.saturating_sub(1)..(column + 2).min(width) {
                        let next = y * width + x;
                        if !self.visited[next] && self.ink[next] > threshold {
                            self.visited[next] = true;
                            self.stack.push(next as u32);
                        }
                    }
                }
            }
            if stroke.pixels >= STROKE_PIXELS_MIN {
                strokes.push(stroke);
                if strokes.len() == MAX_STROKES {
                    break;
                }
            }
        }
        strokes
    }

    /// The ink in a box as the network takes it: the box's longer side fills the 8 pixels, as in the data set,
    /// the shorter one is centred, and the brightest ink is 1.
    fn cut(&self, width: usize, bbox: &BBox) -> Patch {
        let side = bbox.width.max(bbox.height) as f32;
        let step = side / SIDE as f32;
        let left = bbox.left as f32 + (bbox.width as f32 - side) / 2.0;
        let top = bbox.top as f32 + (bbox.height as f32 - side) / 2.0;
        let mut pixels = [0.0f32; PIXELS];
        for (index, pixel) in pixels.iter_mut().enumerate() {
            let x = left + (index % SIDE) as f32 * step;
            let y = top + (index / SIDE) as f32 * step;
            *pixel = self.mean(width, (x, x + step), (y, y + step), bbox).max(0.0);
        }
        let brightest = pixels.iter().fold(1.0f32, |brightest, &pixel| brightest.max(pixel));
        Patch { pixels: pixels.map(|pixel| pixel / brightest) }
    }

    /// The mean ink over a rectangle with fractional edges. What lies outside `bbox` counts as none.
    fn mean(&self, width: usize, columns: (f32, f32), rows: (f32, f32), bbox: &BBox) -> f32 {
        let mut sum = 0.0;
        let first = |edge: f32, bound: u32| (edge.floor().max(0.0) as u32).max(bound);
        let last = |edge: f32, bound: u32| (edge.ceil().max(0.0) as u32).min(bound);
        for row in first(rows.0, bbox.top)..last(rows.1, bbox.bottom()) {
            let high = (row as f32 + 1.0).min(rows.1) - (row as f32).max(rows.0);
            for column in first(columns.0, bbox.left)..last(columns.1, bbox.right()) {
                let wide = (column as f32 + 1.0).min(columns.1) - (column as f32).max(columns.0);
                sum += f32::from(self.ink[row as usize * width + column as usize]) * high * wide;
            }
        }
        sum / ((columns.1 - columns.0) * (rows.1 - rows.0))
    }
}

fn at(place: usize, width: usize) -> BBox {
    BBox::pixel((place % width) as u32, (place / width) as u32)
}

/// Joins the parts of broken digits. The number of strokes is bounded, and each round but the last removes one,
/// so it ends.
fn merge(strokes: &mut Vec<Stroke>) {
    let mut first = 0;
    while first < strokes.len() {
        let stroke = strokes[first];
        let part = (first + 1..strokes.len()).find(|&other| {
            let joint = stroke.bbox.union(&strokes[other].bbox);
            // Large digits break with larger gaps.
            let gap = MERGE_GAP.max(joint.height / 10);
            stroke.bbox.gap(&strokes[other].bbox) <= gap && is_digit_shaped(&joint)
        });
        match part {
            Some(other) => {
                let other = strokes.swap_remove(other);
                strokes[first].bbox = stroke.bbox.union(&other.bbox);
                strokes[first].pixels = stroke.pixels.saturating_add(other.pixels);
                // It has grown: strokes that were too far away before may touch it now.
            }
            None => first += 1,
        }
    }
}

fn is_digit_shaped(bbox: &BBox) -> bool {
    bbox.width <= SIDE_MAX
        && bbox.height <= SIDE_MAX
        && bbox.width as f32 <= (bbox.height.max(HEIGHT_MIN) as f32) * WIDTH_PER_HEIGHT_MAX
}

fn is_digit_sized(stroke: &Stroke) -> bool {
    stroke.bbox.height >= HEIGHT_MIN && stroke.pixels >= DIGIT_PIXELS_MIN && is_digit_shaped(&stroke.bbox)
}

/// What touches the edge may be a part of a digit, which could be read as another one.
fn is_inside(bbox: &BBox, columns: u32, rows: u32) -> bool {
    bbox.left > 0 && bbox.top > 0 && bbox.right() < columns && bbox.bottom() < rows
}

#[cfg(test)]
mod tests;
