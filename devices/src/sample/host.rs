//! The host's load, through sysinfo.

use std::time::Duration;

use quark_base::ByteSize;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};

use super::{CpuLoad, MemoryLoad};
use crate::inventory::{Note, Source};

/// Reads this machine's processors and memory.
pub(super) struct HostSource {
    system: System,
    read_at: Duration,
    load: Option<CpuLoad>,
}

impl HostSource {
    /// Takes the first reading, which the next one is compared with.
    pub(super) fn open(now: Duration) -> Result<Self, Note> {
        let mut system = System::new().map_err(|error| {
            Note::broken(Source::Procfs, format!("the host's load cannot be read: {error}"))
        })?;
        system.refresh_cpu_usage();
        Ok(Self { system, read_at: now, load: None })
    }

    pub(super) fn sample(&mut self, now: Duration) -> (Option<CpuLoad>, Option<MemoryLoad>) {
        // Differences over less than this are noise; the load of before stands until then.
        if now.saturating_sub(self.read_at) >= MINIMUM_CPU_UPDATE_INTERVAL {
            self.system.refresh_cpu_usage();
            self.read_at = now;
            let per_core: Vec<f32> = self.system.cpus().iter().map(|cpu| share(cpu.usage())).collect();
            self.load = (!per_core.is_empty())
                .then(|| CpuLoad { total: share(self.system.global_cpu_usage()), per_core });
        }
        self.system.refresh_memory();
        let memory = (self.system.total_memory() > 0).then(|| MemoryLoad {
            used: ByteSize::bytes(self.system.used_memory()),
            available: ByteSize::bytes(self.system.available_memory()),
        });
        (self.load.clone(), memory)
    }
}

/// Percent to a share. Counters of two readings may cross and give a little more than all.
fn share(percent: f32) -> f32 {
    if percent.is_finite() { (percent / 100.0).clamp(0.0, 1.0) } else { 0.0 }
}
