//! What the cameras see: scenes drawn from a seed, or a folder of PNG files. Made before the run, so that
//! neither drawing nor decoding is part of what is measured.

use std::path::Path;

use anyhow::bail;
use quark_vision::Frame;
use quark_vision::data::{DataError, Digits};
use quark_vision::pngs::PngFrames;
use quark_vision::scene::{Conveyor, HEIGHT, WIDTH};

/// Different scenes drawn for one camera; later bursts show them again.
const SCENES_PER_CAMERA_MAX: u32 = 240;
/// Scenes drawn in all: 16 kB each.
const SCENES_MAX: u32 = 4_096;
/// Frame numbers between two bursts' scenes, so that each burst shows other digits.
const SCENE_STEP: u64 = 7;
/// Pixels of the user's own frames that are taken into memory.
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
    pub(crate) fn of_pngs(folder: &Path) -> anyhow::Result<Self> {
        Self::of_pngs_within(folder, PIXELS_MAX)
    }

    fn of_pngs_within(folder: &Path, pixels_max: usize) -> anyhow::Result<Self> {
        let files = PngFrames::open(folder)?;
        let (mut scenes, mut pixels, mut size) = (Vec::with_capacity(files.len()), 0, (0, 0));
        for number in 0..files.len() as u64 {
            // All of them are decoded first, so that a bad one is told before the run.
            let frame = files.frame(0, number)?;
            pixels += frame.pixels().len();
            if pixels > pixels_max {
                let folder = folder.display();
                bail!(
                    "{folder}: its pictures hold more than {pixels_max} pixels; give fewer or smaller ones"
                );
            }
            size = (size.0.max(frame.width() as u32), size.1.max(frame.height() as u32));
            scenes.push(Picture { frame, truth: None });
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

    /// 16 by 16 black pixels.
    const PICTURE: &[u8] =
        b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x10\x00\x00\x00\x10\
        \x08\x00\x00\x00\x00\x3a\x98\xa0\xbd\x00\x00\x00\x0d\x49\x44\x41\x54\x78\xda\x63\x60\x18\x05\xc8\
        \x00\x00\x01\x10\x00\x01\x7f\xcd\x03\xb5\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";

    #[test]
    fn more_pictures_than_fit_are_refused_and_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join(name), PICTURE).unwrap();
        }
        assert_eq!(Belt::of_pngs_within(folder.path(), 512).unwrap().scenes.len(), 2);
        let refused = Belt::of_pngs_within(folder.path(), 511).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("more than 511 pixels"), "{refused}");
    }
}
