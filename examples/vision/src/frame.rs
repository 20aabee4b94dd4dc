//! One grey picture from one camera.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest side of a frame, in pixels: 16 MiB of pixels at most.
pub const MAX_SIDE: u32 = 4_096;
/// The shortest side of a frame, in pixels: nothing smaller holds a digit with a border around it.
pub const MIN_SIDE: u32 = 12;

/// One grey picture. Cloning shares the pixels.
#[derive(Clone, PartialEq)]
pub struct Frame {
    camera: u32,
    number: u64,
    width: u32,
    height: u32,
    pixels: Arc<[u8]>,
    captured: Option<Duration>,
}

impl Frame {
    /// A frame of `width` x `height` grey levels, row by row, 0 black.
    ///
    /// # Errors
    ///
    /// [`FrameError`] where a side is out of bounds or the pixels are too few or too many.
    pub fn new(
        camera: u32,
        number: u64,
        width: u32,
        height: u32,
        pixels: impl Into<Arc<[u8]>>,
    ) -> Result<Self, FrameError> {
        let pixels = pixels.into();
        let sides = MIN_SIDE..=MAX_SIDE;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(FrameError::Size { width, height });
        }
        if pixels.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(FrameError::Pixels { width, height, found: pixels.len() });
        }
        Ok(Self { camera, number, width, height, pixels, captured: None })
    }

    /// The same picture as another camera's frame, or under another number. Shares the pixels.
    pub fn renumbered(&self, camera: u32, number: u64) -> Self {
        Self { camera, number, captured: None, ..self.clone() }
    }

    /// Says when the frame was taken, on the sender's own clock.
    pub fn captured_at(mut self, captured: Duration) -> Self {
        self.captured = Some(captured);
        self
    }

    /// Which camera took it.
    pub fn camera(&self) -> u32 {
        self.camera
    }

    /// The camera's running number of it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Pixels in a row: [`MIN_SIDE`] to [`MAX_SIDE`].
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// Rows: [`MIN_SIDE`] to [`MAX_SIDE`].
    pub fn height(&self) -> usize {
        self.height as usize
    }

    /// Grey levels, row by row: width x height of them.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// When it was taken, on the sender's own clock.
    pub fn captured(&self) -> Option<Duration> {
        self.captured
    }
}

impl std::fmt::Debug for Frame {
    /// Leaves the pixels out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Frame")
            .field("camera", &self.camera)
            .field("number", &self.number)
            .field("width", &self.width)
            .field("height", &self.height)
            .field("captured", &self.captured)
            .finish_non_exhaustive()
    }
}

/// Why numbers are no frame. Nothing was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A side is out of bounds.
    #[error("a frame of {width} x {height} pixels: each side must have {MIN_SIDE} to {MAX_SIDE}")]
    Size {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The pixels don't fill the frame, or overfill it.
    #[error("a frame of {width} x {height} pixels came with {found} grey levels: give one a pixel")]
    Pixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Grey levels that came.
        found: usize,
    },
}

/// A rectangle of pixels. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BBox {
    /// The leftmost column.
    pub left: u32,
    /// The topmost row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl BBox {
    /// The one pixel at a place.
    pub fn pixel(column: u32, row: u32) -> Self {
        Self { left: column, top: row, width: 1, height: 1 }
    }

    /// One past the last column.
    pub fn right(&self) -> u32 {
        self.left.saturating_add(self.width)
    }

    /// One past the last row.
    pub fn bottom(&self) -> u32 {
        self.top.saturating_add(self.height)
    }

    /// The smallest rectangle around both.
    pub fn union(&self, other: &Self) -> Self {
        let (left, top) = (self.left.min(other.left), self.top.min(other.top));
        let (right, bottom) = (self.right().max(other.right()), self.bottom().max(other.bottom()));
        Self { left, top, width: right - left, height: bottom - top }
    }

    /// Pixels between the two, along the axis on which they are further apart; 0 where they touch or overlap.
    pub fn gap(&self, other: &Self) -> u32 {
        let apart =
            |a: u32, a_end: u32, b: u32, b_end: u32| b.saturating_sub(a_end).max(a.saturating_sub(b_end));
        let columns = apart(self.left, self.right(), other.left, other.right());
        let rows = apart(self.top, self.bottom(), other.top, other.bottom());
        columns.max(rows)
    }

    /// Shared area over joint area, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let columns = self.right().min(other.right()).saturating_sub(self.left.max(other.left));
        let rows = self.bottom().min(other.bottom()).saturating_sub(self.top.max(other.top));
        let shared = u64::from(columns) * u64::from(rows);
        let joint = self.area() + other.area() - shared;
        if joint == 0 { 0.0 } else { shared as f32 / joint as f32 }
    }

    /// Pixels in it.
    pub fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_frames_are_refused() {
        assert_eq!(
            Frame::new(0, 0, 0, 20, vec![]).map(|_| ()),
            Err(FrameError::Size { width: 0, height: 20 })
        );
        assert_eq!(
            Frame::new(0, 0, 20, u32::MAX, vec![]).map(|_| ()),
            Err(FrameError::Size { width: 20, height: u32::MAX })
        );
        assert_eq!(
            Frame::new(0, 0, 20, 20, vec![0; 399]).map(|_| ()),
            Err(FrameError::Pixels { width: 20, height: 20, found: 399 })
        );
        let frame =
            Frame::new(7, 9, 20, 12, vec![3; 240]).expect("whole").captured_at(Duration::from_secs(1));
        assert_eq!((frame.camera(), frame.number(), frame.width(), frame.height()), (7, 9, 20, 12));
        assert_eq!(frame.captured(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn boxes_overlap_and_lie_apart() {
        let first = BBox { left: 2, top: 2, width: 4, height: 4 };
        let second = BBox { left: 4, top: 2, width: 4, height: 4 };
        assert!((first.iou(&second) - 8.0 / 24.0).abs() < 1e-6);
        assert_eq!(first.gap(&second), 0);
        let third = BBox { left: 9, top: 20, width: 1, height: 1 };
        assert_eq!((first.gap(&third), third.gap(&first)), (14, 14));
        assert_eq!(first.iou(&third), 0.0);
        assert_eq!(first.union(&third), BBox { left: 2, top: 2, width: 8, height: 19 });
    }
}
