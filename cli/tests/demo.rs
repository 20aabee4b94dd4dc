//! `quark demo vision` as a user runs it: on the processor, on llvmpipe, and with what it can't use.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A run that takes a few seconds also without optimisation.
const SMALL: [&str; 6] = ["--cameras", "2", "--frames", "5", "--rounds", "4"];

fn quark(args: &[&str]) -> Output {
    // As in a container: Mesa complains on stderr then, which must not reach the user.
    Command::new(env!("CARGO_BIN_EXE_quark")).args(args).env_remove("XDG_RUNTIME_DIR").output().unwrap()
}

fn demo(args: &[&str]) -> Output {
    quark(&[&["demo", "vision"], &SMALL[..], args].concat())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One line on stderr that starts with "error: ", nothing on stdout, exit code 1.
fn assert_one_line_error(output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(text(&output.stdout), "");
    for part in parts {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
}

/// What holds of every run, whatever it ran on.
fn assert_sane(report: &Value) {
    assert!(report["accuracy"].as_f64().unwrap() >= 0.95, "{report}");
    assert!(report["digits_seen"].as_u64().unwrap() > 100, "{report}");
    assert!(report["recall"].as_f64().unwrap() >= 0.85, "{report}");
    for latency in ["/first_frame_ms/cold", "/first_frame_ms/warm", "/steady_frame_ms"] {
        let summary = report.pointer(latency).unwrap();
        let (p50, p99) = (summary["p50"].as_f64().unwrap(), summary["p99"].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{latency}: {summary}");
        assert!(summary["count"].as_u64().unwrap() > 0, "{latency}: {summary}");
    }
    let prewarm = &report["prewarm"];
    assert!(prewarm["hits"].as_u64().unwrap() + prewarm["late"].as_u64().unwrap() > 0, "{report}");
    assert!(prewarm["misses"].is_u64() && prewarm["wasted"].is_u64(), "{report}");
    let devices = report["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0]["turns"], report["frames_analysed"]);
    assert_eq!(devices[0]["share"], 1.0);
    assert_eq!(report["vram"]["granted_at_end_bytes"], 0);
}

#[test]
fn the_processor_sees_the_digits_and_prewarming_hits() {
    let report = json(&demo(&["--device", "cpu", "--json"]));
    assert_sane(&report);
    assert_eq!((&report["device"], &report["backend"]), (&"cpu".into(), &"cpu".into()));
    assert_eq!(report["vram"]["leases_peak"], 0);
}

#[test]
fn wgpu_llvmpipe_sees_the_same_digits_and_leases_are_given_back() {
    let report = json(&demo(&["--device", "llvmpipe", "--json"]));
    assert_sane(&report);
    assert_eq!((&report["device"], &report["backend"]), (&"llvmpipe".into(), &"wgpu".into()));
    let (granted, debited) = (&report["vram"]["granted_peak_bytes"], &report["vram"]["debited_peak_bytes"]);
    assert!(debited.as_u64().unwrap() > 0 && granted.as_u64() >= debited.as_u64(), "{report}");
}

#[test]
fn without_json_it_is_a_report_for_people_and_stderr_stays_empty() {
    let output = quark(&["demo", "vision", "--cameras", "1", "--frames", "2", "--rounds", "3"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    for part in ["first frame, cold", "steady frame", "prewarm", "digits", "network", "VRAM"] {
        assert!(text(&output.stdout).contains(part), "{part} is missing in {}", text(&output.stdout));
    }
}

#[test]
fn a_folder_of_png_files_takes_the_place_of_the_conveyor() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(folder.path().join(format!("{number}.png")), grey_png(64, 48)).unwrap();
    }
    let folder = folder.path().to_str().unwrap();
    let report = json(&demo(&["--device", "cpu", "--json", "--frames-from", folder]));
    assert_eq!(report["digits_seen"], 0);
    assert!(report["recall"].is_null() && report["frames_analysed"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_frame_that_is_no_png_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0.png"), grey_png(64, 48)).unwrap();
    fs::write(folder.path().join("1.png"), "GIF89a").unwrap();
    let output = demo(&["--device", "cpu", "--frames-from", folder.path().to_str().unwrap()]);
    assert_one_line_error(&output, &["1.png", "is no PNG file"]);
    let missing = folder.path().join("missing");
    let output = demo(&["--device", "cpu", "--frames-from", missing.to_str().unwrap()]);
    assert_one_line_error(&output, &["missing", "give a folder of PNG files"]);
    assert_eq!(text(&output.stderr).matches("os error").count(), 1, "a cause is told once");
}

#[test]
fn a_corrupt_safetensors_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corrupt.safetensors");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vision/model/digits.safetensors");
    let whole = fs::read(&model).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let output = demo(&["--device", "cpu", "--model", file.to_str().unwrap()]);
    assert_one_line_error(&output, &["corrupt.safetensors", "not a whole safetensors file"]);
    let report = json(&demo(&["--device", "cpu", "--json", "--model", model.to_str().unwrap()]));
    assert_sane(&report);
}

#[test]
fn cuda_where_there_is_none_is_one_line() {
    // Hides the devices of a machine that has some.
    let output = Command::new(env!("CARGO_BIN_EXE_quark"))
        .args(["demo", "vision", "--device", "cuda"])
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    assert_one_line_error(&output, &["no CUDA device", "--device cpu"]);
}

#[test]
fn wgpu_a_need_larger_than_any_device_names_what_each_lacked() {
    let output = demo(&["--device", "llvmpipe", "--vram", "1MiB"]);
    assert_one_line_error(
        &output,
        &["gpu(vram = 4 MiB", "llvmpipe", "has 1 MiB to lease in all", "--device cpu"],
    );
}

#[test]
fn wrong_usage_says_what_to_write() {
    for args in [
        &["demo", "vison"][..],
        &["demonstrate"],
        &["demo", "vision", "--device", "tpu"],
        &["demo", "vision", "--cameras", "0"],
        &["demo", "vision", "--cameras", "many"],
        &["demo", "vision", "--frames", "1"],
        &["demo", "vision", "--vram", "much"],
    ] {
        let output = quark(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let message = text(&output.stderr);
        assert!(message.starts_with("error: ") && !message.contains("panicked"), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert_eq!(text(&output.stdout), "");
    }
}

/// A picture with nothing on it.
fn grey_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![90; (width * height) as usize]).unwrap();
    writer.finish().unwrap();
    bytes
}
