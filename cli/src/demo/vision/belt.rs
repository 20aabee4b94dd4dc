//! What the cameras see: scenes drawn from a seed, or a folder of PNG files. Made before the run, so that
//! neither drawing nor decoding is part of what is measured.

use std::path::Path;

use quark_vision::Frame;
use quark_vision::data::{DataError, Digits};
use quark_vision::pngs::{PngError, PngFrames};
use quark_vision::scene::{Conveyor, HEIGHT, WIDTH};

/// Different scenes drawn for one camera; later bursts show them again.
const SCENES_PER_CAMERA_MAX: u32 = 240;
/// Scenes drawn in all: 16 kB each.
const SCENES_MAX: u32 = 4_096;
/// Frame numbers between two bursts' scenes, so that each burst shows other digits.
const SCENE_STEP: u64 = 7;
/// Pixels of the user's own frames that are kept in memory.
const PIXELS_MAX: usize = 512 << 20;

/// All frames that will be sent.
pub(crate) struct Belt {
    /// Camera by camera, the same number for each; one list for all where the frames are the user's.
    scenes: Vec<Picture>,
    per_camera: usize,
    shared: bool,
    size: (u32, u32),
}

struct Picture {
    frame: Frame,
    /// What it shows in full; `None` where nobody knows.
    truth: Option<Vec<quark_vision::scene::Truth>>,
}

impl Belt {
    /// Scenes of held-out digits, for so many frames of each camera.
    pub(crate) fn drawn(seed: u64, cameras: u32, frames: u32) -> Result<Self, DataError> {
        let digits = Digits::load()?;
        let belt = Conveyor::new(digits.held_out(), seed);
        let per_camera = frames.min(SCENES_PER_CAMERA_MAX).min(SCENES_MAX / cameras.max(1)).max(1);
        let scenes = (0..cameras).flat_map(|camera| {
            (0..per_camera).map(move |number| belt.scene(camera, u64::from(number) * SCENE_STEP))
        });
        let scenes = scenes.map(|scene| Picture { frame: scene.frame, truth: Some(scene.truth) }).collect();
        Ok(Self { scenes, per_camera: per_camera as usize, shared: false, size: (WIDTH, HEIGHT) })
    }

    /// Every PNG file of a folder, for all cameras.
    pub(crate) fn of_pngs(folder: &Path) -> Result<Self, PngError> {
        let files = PngFrames::open(folder)?;
        let (mut scenes, mut pixels, mut size) = (Vec::with_capacity(files.len()), 0, (0, 0));
        for number in 0..files.len() as u64 {
            // All of them are decoded, so that a bad one is told before the run; the first ones are kept.
            let frame = files.frame(0, number)?;
            pixels += frame.pixels().len();
            if pixels <= PIXELS_MAX {
                size = (size.0.max(frame.width() as u32), size.1.max(frame.height() as u32));
                scenes.push(Picture { frame, truth: None });
            }
        }
        Ok(Self { per_camera: scenes.len(), scenes, shared: true, size })
    }

    /// The frame `number` of `camera`.
    pub(crate) fn frame(&self, camera: u32, number: u64) -> Frame {
        self.picture(camera, number).frame.renumbered(camera, number)
    }

    /// What that frame shows in full, if that is known.
    pub(crate) fn truth(&self, camera: u32, number: u64) -> Option<&[quark_vision::scene::Truth]> {
        self.picture(camera, number).truth.as_deref()
    }

    /// Width and height that hold any of the frames.
    pub(crate) fn frame_size(&self) -> (u32, u32) {
        self.size
    }

    fn picture(&self, camera: u32, number: u64) -> &Picture {
        let first = if self.shared { 0 } else { camera as usize * self.per_camera };
        &self.scenes[first + (number % self.per_camera as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_see_different_scenes_and_long_runs_see_them_again() {
        let belt = Belt::drawn(1, 3, 4).expect("data");
        assert_eq!(belt.frame_size(), (WIDTH, HEIGHT));
        assert_ne!(belt.frame(0, 0).pixels(), belt.frame(1, 0).pixels());
        assert_ne!(belt.frame(0, 0).pixels(), belt.frame(0, 1).pixels());
        assert_eq!(belt.frame(2, 1).pixels(), belt.frame(2, 5).pixels());
        let again = belt.frame(2, 5);
        assert_eq!((again.camera(), again.number()), (2, 5));
        assert!(belt.truth(2, 5).is_some());
    }

    #[test]
    fn many_cameras_stay_within_the_bound() {
        let belt = Belt::drawn(1, 256, 100_000).expect("data");
        assert!(belt.scenes.len() <= SCENES_MAX as usize);
        belt.frame(255, u64::MAX);
    }
}
