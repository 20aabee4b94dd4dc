//! What each device of a silo was used for.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use quark_base::ByteSize;
use quark_devices::inventory::{DeviceId, Inventory};
use quark_devices::ledger::DeviceUsage;
use serde::{Deserialize, Serialize};

use crate::latency::milliseconds;

/// What the processor is called where a device's id would stand.
pub const PROCESSOR: &str = "cpu";

/// One device's part in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The device's id in the inventory; [`PROCESSOR`] for the processor.
    pub device: String,
    /// The product's name.
    pub name: String,
    /// What ran the work on it, such as "cuda" or "cpu"; empty where nothing ran.
    pub backend: String,
    /// Turns that worked on it.
    pub turns: u64,
    /// How long those took together, in milliseconds.
    pub busy_ms: f64,
    /// Their part of all devices' busy time, 0 to 1.
    pub share: f64,
    /// What the device could lease out; zero for the processor.
    #[serde(rename = "vram_capacity_bytes", with = "in_bytes")]
    pub vram_capacity: ByteSize,
    /// The most that was leased of it at once.
    #[serde(rename = "vram_granted_peak_bytes", with = "in_bytes")]
    pub vram_granted_peak: ByteSize,
    /// The most that its lease holders had allocated at once.
    #[serde(rename = "vram_debited_peak_bytes", with = "in_bytes")]
    pub vram_debited_peak: ByteSize,
    /// The most leases it had at once.
    pub leases_peak: u64,
}

/// For machines an amount of memory is always a number, also where it is a round one.
mod in_bytes {
    use quark_base::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(size.as_u64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        u64::deserialize(deserializer).map(ByteSize::bytes)
    }
}

/// Collects [`DeviceReport`]s: turns as they end, and the ledger's books whenever its owner looks at them.
#[derive(Clone, Debug)]
pub struct DeviceMeter {
    processor: Row,
    devices: BTreeMap<DeviceId, Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    backend: String,
    turns: u64,
    busy: Duration,
    capacity: ByteSize,
    granted_peak: ByteSize,
    debited_peak: ByteSize,
    leases_peak: usize,
}

impl DeviceMeter {
    /// A meter for the processor and the devices of this machine.
    pub fn new(inventory: &Inventory) -> Self {
        let model = inventory.cpu.model.trim();
        let name = if model.is_empty() { "processor".to_owned() } else { model.to_owned() };
        let row = |name: &str| Row { name: name.to_owned(), ..Row::default() };
        let devices = inventory.devices.iter().map(|device| (device.id.clone(), row(&device.name)));
        Self { processor: Row { name, ..Row::default() }, devices: devices.collect() }
    }

    /// Adds a turn that took `busy` on `device`, or on the processor, by way of `backend`. A device that the
    /// inventory lacks is not counted.
    pub fn record(&mut self, device: Option<&DeviceId>, backend: &str, busy: Duration) {
        let row = match device {
            None => Some(&mut self.processor),
            Some(device) => self.devices.get_mut(device),
        };
        if let Some(row) = row {
            row.turns += 1;
            row.busy = row.busy.saturating_add(busy);
            if row.backend != backend {
                row.backend = backend.to_owned();
            }
        }
    }

    /// Looks at the ledger's books, for the peaks.
    pub fn observe(&mut self, usage: &[DeviceUsage]) {
        for books in usage {
            if let Some(row) = self.devices.get_mut(&books.device) {
                row.capacity = books.capacity;
                row.granted_peak = row.granted_peak.max(books.granted);
                row.debited_peak = row.debited_peak.max(books.debited);
                row.leases_peak = row.leases_peak.max(books.leases.len());
            }
        }
    }

    /// Adds what another meter of the same machine has counted: its turns add up, its peaks count where higher.
    pub fn add(&mut self, other: &Self) {
        self.processor.add(&other.processor);
        for (id, row) in &other.devices {
            self.devices
                .entry(id.clone())
                .or_insert_with(|| Row { name: row.name.clone(), ..Row::default() })
                .add(row);
        }
    }

    /// The devices that worked or were leased: the processor first, then the others by their ids.
    pub fn reports(&self) -> Vec<DeviceReport> {
        let processor = (PROCESSOR.to_owned(), &self.processor);
        let devices = self.devices.iter().map(|(id, row)| (id.as_str().to_owned(), row));
        let rows: Vec<(String, &Row)> = std::iter::once(processor).chain(devices).collect();
        let all: Duration = rows.iter().map(|(_, row)| row.busy).sum();
        let share = |busy: Duration| if all.is_zero() { 0.0 } else { busy.as_secs_f64() / all.as_secs_f64() };
        let used = rows.into_iter().filter(|(_, row)| row.turns > 0 || row.leases_peak > 0);
        used.map(|(device, row)| DeviceReport {
            device,
            name: row.name.clone(),
            backend: row.backend.clone(),
            turns: row.turns,
            busy_ms: milliseconds(row.busy),
            share: share(row.busy),
            vram_capacity: row.capacity,
            vram_granted_peak: row.granted_peak,
            vram_debited_peak: row.debited_peak,
            leases_peak: row.leases_peak as u64,
        })
        .collect()
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.turns += other.turns;
        self.busy = self.busy.saturating_add(other.busy);
        self.capacity = self.capacity.max(other.capacity);
        self.granted_peak = self.granted_peak.max(other.granted_peak);
        self.debited_peak = self.debited_peak.max(other.debited_peak);
        self.leases_peak = self.leases_peak.max(other.leases_peak);
        if self.backend.is_empty() {
            self.backend.clone_from(&other.backend);
        }
    }
}

/// The reports as a table of text; `turns` is what a turn is called here, such as "frames".
pub fn table(reports: &[DeviceReport], turns: &str) -> String {
    const NUMBERS_FROM: usize = 2;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header(["device", "through", turns, "busy", "share", "leases", "VRAM leased", "allocated"]);
    for report in reports {
        let on_device = report.device != PROCESSOR;
        let memory = |size: ByteSize| if on_device { size.to_string() } else { "-".to_owned() };
        table.add_row([
            report.name.clone(),
            report.backend.clone(),
            report.turns.to_string(),
            format!("{:.2} s", report.busy_ms / 1e3),
            format!("{:.1} %", report.share * 100.0),
            if on_device { report.leases_peak.to_string() } else { "-".to_owned() },
            memory(report.vram_granted_peak),
            memory(report.vram_debited_peak),
        ]);
    }
    for column in table.column_iter_mut().skip(NUMBERS_FROM) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quark_devices::pool::{DevicePool, PoolOptions};
    use quark_devices::probe::{ProbeOptions, probe};
    use std::path::Path;
    use std::sync::Arc;

    fn two_cards() -> Arc<DevicePool> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/topologies/l4x4.toml");
        let inventory = probe(&ProbeOptions::default().topology(file)).expect("the shipped topology");
        DevicePool::open(Arc::new(inventory), PoolOptions::new())
    }

    #[test]
    fn work_is_shared_out_and_peaks_outlive_their_leases() {
        let pool = two_cards();
        let inventory = pool.inventory();
        let (first, second) = (inventory.devices[0].id.clone(), inventory.devices[1].id.clone());
        let mut meter = DeviceMeter::new(inventory);
        let grant = |device| {
            pool.lease(device, ByteSize::gib(2), "actor", Duration::ZERO).expect("an empty card has room")
        };
        let leases = [grant(&first), grant(&first), grant(&second)];
        let held = leases[0].reserve(ByteSize::mib(7)).expect("it fits the lease");
        meter.observe(&pool.usage());
        drop((held, leases));
        meter.observe(&pool.usage());
        meter.record(Some(&first), "cuda", Duration::from_millis(30));
        meter.record(None, "cpu", Duration::from_millis(10));
        meter.record(Some(&DeviceId::new("not there")), "cuda", Duration::from_secs(9));

        let reports = meter.reports();
        let names: Vec<&str> = reports.iter().map(|report| report.device.as_str()).collect();
        assert_eq!(names, [PROCESSOR, first.as_str(), second.as_str()]);
        assert_eq!((reports[0].share, reports[1].share, reports[2].share), (0.25, 0.75, 0.0));
        assert_eq!((reports[1].leases_peak, reports[2].leases_peak), (2, 1));
        assert_eq!(reports[1].vram_granted_peak, ByteSize::gib(4));
        assert_eq!(reports[1].vram_debited_peak, ByteSize::mib(7));
        assert_eq!((reports[1].backend.as_str(), reports[2].turns), ("cuda", 0));
    }

    #[test]
    fn meters_of_two_runs_add_up() {
        let pool = two_cards();
        let device = pool.inventory().devices[0].id.clone();
        let meter = DeviceMeter::new(pool.inventory());
        let (mut one, mut other) = (meter.clone(), meter);
        one.record(Some(&device), "cuda", Duration::from_millis(2));
        other.record(Some(&device), "cuda", Duration::from_millis(3));
        let lease = pool.lease(&device, ByteSize::gib(1), "actor", Duration::ZERO).expect("room");
        other.observe(&pool.usage());
        drop(lease);
        one.add(&other);
        let reports = one.reports();
        assert_eq!((reports.len(), reports[0].turns, reports[0].busy_ms), (1, 2, 5.0));
        assert_eq!((reports[0].vram_granted_peak, reports[0].leases_peak), (ByteSize::gib(1), 1));
    }

    #[test]
    fn a_machine_where_nothing_ran_has_no_rows() {
        let pool = two_cards();
        assert!(DeviceMeter::new(pool.inventory()).reports().is_empty());
    }

    #[test]
    fn the_table_names_devices_and_what_a_turn_is() {
        let pool = two_cards();
        let mut meter = DeviceMeter::new(pool.inventory());
        meter.record(Some(&pool.inventory().devices[0].id), "cuda", Duration::from_millis(1_500));
        meter.record(None, "cpu", Duration::ZERO);
        let text = table(&meter.reports(), "frames");
        for part in ["frames", "1.50 s", "100.0 %", "cuda", &pool.inventory().devices[0].name] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
