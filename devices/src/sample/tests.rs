use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::inventory::Source;
use crate::pool::tests::{inventory, simulated};

/// A clock that a test moves.
#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn timestamp(&self) -> quark_base::Timestamp {
        quark_base::Timestamp::VIRTUAL_ORIGIN.saturating_add(self.now())
    }
}

/// Answers one thing about one device, and about one that nobody asked for.
struct Double(DeviceSample);

impl DeviceSource for Double {
    fn sample(&mut self, devices: &[Device]) -> Vec<DeviceSample> {
        assert_eq!(devices.len(), 2);
        let stranger =
            DeviceSample { power_w: Some(9.0), ..DeviceSample::unknown(DeviceId::new("stranger")) };
        vec![stranger, self.0.clone()]
    }
}

fn two_devices() -> Inventory {
    inventory(vec![simulated("a", ByteSize::gib(8)), simulated("b", ByteSize::gib(8))])
}

#[test]
fn sources_complete_each_other_in_order() {
    let first = DeviceSample { power_w: Some(300.0), ..DeviceSample::unknown(DeviceId::new("b")) };
    let second = DeviceSample {
        power_w: Some(1.0),
        temperature_c: Some(61.0),
        ..DeviceSample::unknown(DeviceId::new("b"))
    };
    let mut sampler =
        Sampler::new(&two_devices()).source(Box::new(Double(first))).source(Box::new(Double(second)));
    let sample = sampler.sample();
    assert_eq!(sample.devices.len(), 2);
    assert_eq!(sample.devices[0], DeviceSample::unknown(DeviceId::new("a")));
    assert_eq!((sample.devices[1].power_w, sample.devices[1].temperature_c), (Some(300.0), Some(61.0)));
}

#[test]
fn a_load_needs_two_readings() {
    let clock = Arc::new(HandClock::default());
    let mut sampler = Sampler::with_clock(&two_devices(), clock.clone());
    assert_eq!(sampler.notes().iter().filter(|note| note.source == Source::Procfs).count(), 0);
    assert_eq!(sampler.sample().cpu, None);
    clock.0.store(1_000, Ordering::SeqCst);
    let sample = sampler.sample();
    let load = sample.cpu.expect("this machine has processors");
    assert!(!load.per_core.is_empty());
    assert!(load.per_core.iter().chain([&load.total]).all(|share| (0.0..=1.0).contains(share)), "{load:?}");
    let memory = sample.memory.expect("this machine has memory");
    assert!(memory.available.as_u64() > 0 && memory.used.as_u64() > 0, "{memory:?}");
    assert_eq!(sample.at, Duration::from_secs(1));
}

#[test]
fn a_sample_reads_well_whatever_is_known() {
    let mut sample = LiveSample::default();
    assert!(render(&sample).contains("measuring"));
    sample.cpu = Some(CpuLoad { total: 0.5, per_core: vec![0.0, 1.0, f32::NAN] });
    sample.devices = vec![
        DeviceSample::unknown(DeviceId::new("dark")),
        DeviceSample {
            utilisation: Some(0.93),
            vram_used: Some(ByteSize::gib(3)),
            temperature_c: Some(71.4),
            power_w: Some(412.6),
            clocks_mhz: Some(Clocks { compute: Some(1980), memory: None }),
            ecc_errors: Some(EccErrors { corrected: 2, uncorrected: 0 }),
            throttle_reasons: Some(vec![ThrottleReason::PowerCap, ThrottleReason::SoftwareThermal]),
            ..DeviceSample::unknown(DeviceId::new("gpu"))
        },
    ];
    let text = render(&sample);
    for part in
        ["50 %", "▁█▁", "93 %", "3 GiB", "71 °C", "413 W", "1980/- MHz", "2 repaired", "power cap, hot"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json = serde_json::to_string(&sample.devices).unwrap();
    assert_eq!(serde_json::from_str::<Vec<DeviceSample>>(&json).unwrap(), sample.devices);
    sample.cpu = Some(CpuLoad { total: 0.25, per_core: vec![0.75; 200] });
    assert!(render(&sample).contains("200 of 200 CPUs"));
}
