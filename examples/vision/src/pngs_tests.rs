use std::io::BufWriter;

use png::{BitDepth, Encoder};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("written");
    }

    /// A picture of 16 x 12 pixels, each with the same samples.
    fn picture(&self, name: &str, color: ColorType, depth: BitDepth, pixel: &[u8]) -> PathBuf {
        let path = self.path(name);
        let mut encoder = Encoder::new(BufWriter::new(File::create(&path).expect("a file")), 16, 12);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![0, 0, 0, 255, 0, 0, 10, 20, 30]);
        }
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&pixel.repeat(16 * 12)).expect("pixels");
        drop(writer);
        path
    }
}

fn one_line_naming(error: &PngError, name: &str) {
    let message = error.to_string();
    assert!(message.contains(name) && !message.contains('\n'), "{message}");
}

#[test]
fn every_layout_becomes_grey() {
    let folder = Folder::new();
    for (name, color, depth, pixel, grey) in [
        ("grey8", ColorType::Grayscale, BitDepth::Eight, &[77][..], 77),
        ("grey16", ColorType::Grayscale, BitDepth::Sixteen, &[77, 200], 77),
        ("alpha", ColorType::GrayscaleAlpha, BitDepth::Eight, &[100, 0], 255),
        ("rgb", ColorType::Rgb, BitDepth::Eight, &[255, 0, 0], 76),
        ("rgb16", ColorType::Rgb, BitDepth::Sixteen, &[0, 0, 255, 255, 0, 0], 150),
        ("rgba", ColorType::Rgba, BitDepth::Eight, &[0, 0, 255, 255], 29),
        ("half", ColorType::Rgba, BitDepth::Eight, &[0, 0, 0, 128], 127),
        ("palette", ColorType::Indexed, BitDepth::Eight, &[1], 76),
    ] {
        let path = folder.picture(name, color, depth, pixel);
        let frame = read(&path, 3, 4).expect(name);
        assert_eq!((frame.width(), frame.height(), frame.camera(), frame.number()), (16, 12, 3, 4));
        assert!(frame.pixels().iter().all(|&pixel| pixel == grey), "{name}: {}", frame.pixels()[0]);
    }
}

#[test]
fn files_come_in_the_order_of_their_names_and_again() {
    let folder = Folder::new();
    folder.picture("b.png", ColorType::Grayscale, BitDepth::Eight, &[2]);
    folder.picture("a.PNG", ColorType::Grayscale, BitDepth::Eight, &[1]);
    folder.write("notes.txt", b"not ours");
    folder.write(".hidden.png", b"not ours either");
    let frames = PngFrames::open(folder.0.path()).expect("two pictures");
    assert_eq!(frames.len(), 2);
    let first: Vec<u8> = (0..3).map(|number| frames.frame(0, number).expect("whole").pixels()[0]).collect();
    assert_eq!(first, [1, 2, 1]);
}

#[test]
fn folders_without_pictures_are_refused() {
    let folder = Folder::new();
    let error = PngFrames::open(folder.0.path()).expect_err("empty");
    assert!(matches!(error, PngError::Empty { .. }));
    one_line_naming(&error, &folder.0.path().display().to_string());
    let error = PngFrames::open(folder.path("nowhere")).expect_err("not there");
    assert!(matches!(error, PngError::Directory { .. }));
    one_line_naming(&error, "nowhere");
}

#[test]
fn other_files_are_named() {
    let folder = Folder::new();
    folder.write("photo.png", b"\xff\xd8\xff\xe0 a JPEG by another name");
    let frames = PngFrames::open(folder.0.path()).expect("one name");
    let error = frames.frame(0, 0).expect_err("no PNG");
    assert!(matches!(error, PngError::NotPng { .. }), "{error}");
    one_line_naming(&error, "photo.png");
    folder.write("empty.png", b"");
    assert!(matches!(read(folder.path("empty.png"), 0, 0), Err(PngError::NotPng { .. })));
    folder.write("other.jpg", b"");
    let error = PngFrames::open(folder.0.path()).expect_err("a JPEG");
    one_line_naming(&error, "other.jpg");
    assert!(matches!(read(folder.path("none.png"), 0, 0), Err(PngError::Unreadable { .. })));
}

#[test]
fn cut_and_damaged_files_are_refused() {
    let folder = Folder::new();
    let whole = std::fs::read(folder.picture("whole.png", ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]));
    let whole = whole.expect("bytes");
    for length in 8..whole.len() - 12 {
        folder.write("cut.png", &whole[..length]);
        let error = read(folder.path("cut.png"), 0, 0).expect_err("cut");
        assert!(matches!(error, PngError::Damaged { .. }), "{length}: {error}");
        one_line_naming(&error, "cut.png");
    }
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 0x15;
        folder.write("damaged.png", &damaged);
        if let Err(error) = read(folder.path("damaged.png"), 0, 0) {
            one_line_naming(&error, "damaged.png");
        }
    }
}

#[test]
fn huge_and_tiny_pictures_are_refused_before_they_are_decoded() {
    let folder = Folder::new();
    for (width, height) in [(200_000, 200_000), (4_097, 20), (8, 40), (i32::MAX as u32, 1)] {
        let path = folder.path("size.png");
        let encoder = Encoder::new(File::create(&path).expect("a file"), width, height);
        // A header alone: the picture would take 40 GB.
        std::mem::forget(encoder.write_header().expect("a header"));
        let error = read(&path, 0, 0).expect_err("out of bounds");
        assert!(matches!(error, PngError::Size { .. }), "{width} x {height}: {error}");
        one_line_naming(&error, "size.png");
    }
}

#[test]
fn a_drawn_frame_survives_being_a_file() {
    let folder = Folder::new();
    let digits = crate::data::Digits::load().expect("data");
    let scene = crate::scene::Conveyor::new(digits.held_out(), 1).scene(0, 120);
    let (width, height) = (scene.frame.width() as u32, scene.frame.height() as u32);
    let path = folder.path("frame.png");
    let encoder = Encoder::new(File::create(&path).expect("a file"), width, height);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(scene.frame.pixels()).expect("pixels");
    drop(writer);
    assert_eq!(read(&path, 0, 120).expect("whole"), scene.frame);
}
