use super::*;
use crate::data::Digits;
use crate::random::Random;
use crate::scene::Conveyor;

fn grey(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u8) -> Frame {
    let pixels: Vec<u8> = (0..height)
        .flat_map(|row| (0..width).map(move |column| (column, row)))
        .map(|(x, y)| pixel(x, y))
        .collect();
    Frame::new(0, 0, width, height, pixels).expect("a frame")
}

#[test]
fn finds_nearly_all_digits_of_drawn_scenes() {
    let digits = Digits::load().expect("data");
    let belt = Conveyor::new(digits.held_out(), 11);
    let mut detector = Detector::new();
    let (mut shown, mut found) = (0, 0);
    for number in 0..60 {
        let scene = belt.scene(1, number * 40);
        let candidates = detector.find(&scene.frame);
        shown += scene.truth.len();
        found += scene
            .truth
            .iter()
            .filter(|truth| candidates.iter().any(|candidate| candidate.bbox.iou(&truth.bbox) > 0.5))
            .count();
    }
    assert!(shown > 200, "{shown}");
    assert!(found as f32 >= 0.97 * shown as f32, "{found} of {shown}");
}

#[test]
fn an_even_frame_holds_nothing() {
    for level in [0, 128, 255] {
        assert_eq!(Detector::new().find(&grey(64, 40, |_, _| level)), []);
    }
}

#[test]
fn dark_ink_on_bright_paper_gives_the_same_patch() {
    let bar = |x, y| (20..24).contains(&x) && (10..22).contains(&y);
    let bright = Detector::new().find(&grey(64, 40, |x, y| if bar(x, y) { 200 } else { 50 }));
    let dark = Detector::new().find(&grey(64, 40, |x, y| if bar(x, y) { 50 } else { 200 }));
    assert_eq!(bright.len(), 1);
    assert_eq!(bright[0].bbox, BBox { left: 20, top: 10, width: 4, height: 12 });
    assert_eq!(bright, dark);
    // Four of twelve columns are ink: the middle third of the eight, with soft edges.
    let row = &bright[0].patch.pixels[3 * SIDE..4 * SIDE];
    assert_eq!((row[0], row[1], row[3], row[4], row[6], row[7]), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0));
}

#[test]
fn broken_strokes_are_one_digit_and_distant_ones_two() {
    let ink = |gap: u32| {
        let found = Detector::new().find(&grey(80, 48, |x, y| {
            let upper = (20..26).contains(&x) && (10..16).contains(&y);
            let lower = (20..26).contains(&x) && (16 + gap..22 + gap).contains(&y);
            if upper || lower { 220 } else { 60 }
        }));
        found.len()
    };
    assert_eq!(ink(2), 1);
    assert_eq!(ink(6), 2);
}

#[test]
fn what_touches_the_edge_is_left_out() {
    let edge =
        Detector::new().find(&grey(64, 40, |x, y| if x < 6 && (10..22).contains(&y) { 220 } else { 60 }));
    assert_eq!(edge, []);
}

#[test]
fn many_strokes_are_bounded() {
    // A grid of more blobs than a frame may yield.
    let blob = |x: u32, y: u32| x % 14 < 6 && y % 14 < 8 && x > 6 && y > 6;
    let found = Detector::new().find(&grey(640, 480, |x, y| if blob(x, y) { 220 } else { 60 }));
    assert_eq!(found.len(), MAX_DETECTIONS);
    assert!(found.windows(2).all(|pair| pair[0].bbox.left <= pair[1].bbox.left));
}

#[test]
fn any_frame_is_survived() {
    let mut random = Random::new(5);
    let mut detector = Detector::new();
    for (width, height) in [(12, 12), (12, 300), (300, 12), (17, 33), (700, 513)] {
        let pixels: Vec<u8> = (0..width * height).map(|_| random.next_u64() as u8).collect();
        let found = detector.find(&Frame::new(0, 0, width, height, pixels).expect("a frame"));
        assert!(found.len() <= MAX_DETECTIONS);
        for candidate in found {
            assert!(candidate.patch.pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
            assert!(candidate.bbox.right() < width && candidate.bbox.bottom() < height);
        }
    }
}
