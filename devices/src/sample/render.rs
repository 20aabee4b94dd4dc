//! A sample as a few lines for people.

use std::fmt::Write;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use super::{CpuLoad, DeviceSample, LiveSample};

/// Per-CPU bars shown on one line; a larger machine shows its busiest ones by count only.
const CORES_SHOWN_MAX: usize = 64;

/// Eighths of a bar, from idle to busy.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The sample as text: a line for the processors, one for memory, a table of the devices. What is unknown is a dash.
pub fn render(sample: &LiveSample) -> String {
    let mut text = String::new();
    text.push_str(&match &sample.cpu {
        Some(load) => format!("CPU     {:>4}  {}\n", percent(load.total), cores(load)),
        None => "CPU        -  (measuring)\n".to_owned(),
    });
    text.push_str(&match sample.memory {
        Some(memory) => format!("Memory  {} used, {} available\n", memory.used, memory.available),
        None => "Memory     -\n".to_owned(),
    });
    if sample.devices.is_empty() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["Device", "Busy", "VRAM used", "Temp.", "Power", "Clock/mem.", "ECC", "Held back by"]);
    for device in &sample.devices {
        table.add_row(row(device));
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{table}");
    text
}

fn row(device: &DeviceSample) -> [String; 8] {
    let dash = || "-".to_owned();
    let clock = |mhz: Option<u32>| mhz.map_or_else(dash, |mhz| mhz.to_string());
    [
        device.device.to_string(),
        device.utilisation.map_or_else(dash, percent),
        device.vram_used.map_or_else(dash, |bytes| bytes.to_string()),
        device.temperature_c.map_or_else(dash, |degrees| format!("{degrees:.0} °C")),
        device.power_w.map_or_else(dash, |watts| format!("{watts:.0} W")),
        device
            .clocks_mhz
            .map_or_else(dash, |clocks| format!("{}/{} MHz", clock(clocks.compute), clock(clocks.memory))),
        device.ecc_errors.map_or_else(dash, |errors| match (errors.corrected, errors.uncorrected) {
            (0, 0) => "none".to_owned(),
            (corrected, uncorrected) => format!("{corrected} repaired, {uncorrected} lost"),
        }),
        device.throttle_reasons.as_ref().map_or_else(dash, |reasons| match reasons.as_slice() {
            [] => "nothing".to_owned(),
            reasons => reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", "),
        }),
    ]
}

fn cores(load: &CpuLoad) -> String {
    if load.per_core.len() > CORES_SHOWN_MAX {
        let busy = load.per_core.iter().filter(|share| **share >= 0.5).count();
        return format!("{busy} of {} CPUs more than half busy", load.per_core.len());
    }
    load.per_core.iter().map(|share| bar(*share)).collect()
}

fn bar(share: f32) -> char {
    // Casts of floats saturate, so odd shares stay within the bars.
    let place = (share * BARS.len() as f32) as usize;
    BARS[place.min(BARS.len() - 1)]
}

fn percent(share: f32) -> String {
    format!("{:.0} %", share * 100.0)
}
