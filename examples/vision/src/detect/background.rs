//! What a frame would show without digits: the median of its surroundings, smoothly from place to place.

/// Distance between the places where the background is measured, in pixels.
const STEP: usize = 16;
/// The median is taken over a square of this side around each place; digits cover less than half of it.
const WINDOW: usize = 40;
/// Every second pixel of every second row is enough for a median.
const STRIDE: usize = 2;
/// Frames larger than this many places a side are measured at places further apart.
const PLACES_MAX: usize = 64;

/// A grid of medians, and the working memory to spread them out.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// The background at every place, row by row.
    places: Vec<f32>,
    columns: usize,
    rows: usize,
    step: usize,
    width: usize,
    line: Vec<i16>,
}

impl Background {
    /// Measures a frame of `width` x `height` grey levels.
    pub(super) fn estimate(&mut self, width: usize, height: usize, pixels: &[u8]) {
        self.step = STEP.max(width.max(height).div_ceil(PLACES_MAX));
        self.columns = width.div_ceil(self.step) + 1;
        self.rows = height.div_ceil(self.step) + 1;
        self.width = width;
        let reach = (WINDOW / 2).max(self.step);
        // Larger windows take fewer of their pixels, so that a place costs the same.
        let stride = STRIDE * (reach * 2).div_ceil(WINDOW);
        self.places.clear();
        for row in 0..self.rows {
            for column in 0..self.columns {
                // Places on the far edges would lie outside the frame.
                let x = (column * self.step).min(width - 1);
                let y = (row * self.step).min(height - 1);
                let mut counts = [0u32; 256];
                for line in (y.saturating_sub(reach)..(y + reach).min(height)).step_by(stride) {
                    let ends = (x.saturating_sub(reach), (x + reach).min(width));
                    for &pixel in pixels[line * width + ends.0..line * width + ends.1].iter().step_by(stride)
                    {
                        counts[usize::from(pixel)] += 1;
                    }
                }
                self.places.push(median(&counts) as f32);
            }
        }
    }

    /// The background along a row of the frame: as many levels as the frame is wide.
    pub(super) fn row(&mut self, row: usize) -> &[i16] {
        let (upper, down) = (row / self.step, (row % self.step) as f32 / self.step as f32);
        let lower = (upper + 1).min(self.rows - 1);
        let (upper, lower) = (&self.places[upper * self.columns..], &self.places[lower * self.columns..]);
        self.line.clear();
        for column in 0..self.columns - 1 {
            let level = |column: usize| upper[column] * (1.0 - down) + lower[column] * down;
            let (left, right) = (level(column), level(column + 1));
            let slope = (right - left) / self.step as f32;
            for x in 0..self.step.min(self.width - column * self.step) {
                self.line.push((left + slope * x as f32 + 0.5) as i16);
            }
        }
        &self.line
    }
}

fn median(counts: &[u32; 256]) -> usize {
    let half = counts.iter().sum::<u32>() / 2;
    let mut seen = 0;
    counts
        .iter()
        .position(|&count| {
            seen += count;
            seen > half
        })
        .unwrap_or(0)
}

/// The deviation of the noise, in grey levels, from the median of the differences' sizes: ink, being the smaller
/// part of a frame, doesn't count. The factor holds for a normal distribution (Hampel 1974).
pub(super) fn deviation(differences: &[i16]) -> f32 {
    let mut counts = [0u32; 256];
    for difference in differences {
        counts[usize::from(difference.unsigned_abs()).min(255)] += 1;
    }
    1.4826 * median(&counts) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_followed_and_ink_is_not() {
        let (width, height) = (100, 70);
        let level = |column: usize| 50 + column / 2;
        let mut pixels: Vec<u8> = (0..width * height).map(|place| level(place % width) as u8).collect();
        for row in 20..32 {
            pixels[row * width + 40..row * width + 50].fill(250);
        }
        let mut background = Background::default();
        background.estimate(width, height, &pixels);
        for row in 0..height {
            let line = background.row(row);
            assert_eq!(line.len(), width);
            for (column, &found) in line.iter().enumerate() {
                let off = (i32::from(found) - level(column) as i32).abs();
                assert!(off <= 11, "row {row}, column {column}: {found}");
            }
        }
        // Away from the frame's edges, where the windows are whole, it is close.
        assert!(
            background
                .row(26)
                .iter()
                .enumerate()
                .skip(32)
                .take(32)
                .all(|(column, &found)| { (i32::from(found) - level(column) as i32).abs() <= 4 })
        );
    }

    #[test]
    fn noise_is_measured_beside_ink() {
        let mut differences = vec![3i16; 500];
        differences.extend([-3; 400]);
        differences.extend([200; 300]);
        assert!((deviation(&differences) - 4.45).abs() < 0.01);
        assert_eq!(deviation(&[]), 0.0);
    }
}
