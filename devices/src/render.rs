//! The inventory as a person likes to read it.

use crate::inventory::{Cpu, CpuSet, Device, DeviceKind, Inventory, IsaFeature, NoteKind, NumaNode};
use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, Table,
    presets::{ASCII_FULL_CONDENSED, UTF8_FULL_CONDENSED},
};
use std::fmt::Write as _;

/// The narrowest table that keeps addresses and sizes in one piece.
pub const MIN_WIDTH: u16 = 80;

/// How to write it.
#[derive(Clone, Debug)]
pub struct Style {
    width: u16,
    unicode: bool,
    software_counts: bool,
}

impl Default for Style {
    /// 100 columns: what a side-by-side terminal has and a mail keeps.
    fn default() -> Self {
        Self { width: 100, unicode: true, software_counts: false }
    }
}

impl Style {
    /// The widest line, at least [`MIN_WIDTH`] columns.
    pub fn width(mut self, columns: u16) -> Self {
        self.width = columns.max(MIN_WIDTH);
        self
    }

    /// Lines of box characters (the default) or of ASCII.
    pub fn unicode(mut self, yes: bool) -> Self {
        self.unicode = yes;
        self
    }

    /// Counts software adapters among the GPUs.
    pub fn software_counts(mut self, yes: bool) -> Self {
        self.software_counts = yes;
        self
    }
}

/// The whole inventory in the default [`Style`]. Ends with a line break.
pub fn table(inventory: &Inventory) -> String {
    table_with(inventory, &Style::default())
}

/// The whole inventory. Ends with a line break.
pub fn table_with(inventory: &Inventory, style: &Style) -> String {
    let mut out = String::new();
    out.push_str(&overview(inventory, style));
    if inventory.numa.len() > 1
        || inventory.numa.iter().any(|node| node.cpus.is_empty() || node.memory.is_zero())
    {
        section(&mut out, "NUMA nodes", nodes(inventory, style));
    }
    if !inventory.devices.is_empty() {
        section(&mut out, "Devices", devices(inventory, style));
        details(&mut out, inventory, style);
    }
    notes(&mut out, inventory, style);
    out
}

fn empty_table(style: &Style) -> Table {
    let mut table = Table::new();
    table.load_style(if style.unicode {
        UTF8_FULL_CONDENSED.with_rounded_corners()
    } else {
        ASCII_FULL_CONDENSED
    });
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(style.width);
    table
}

fn section(out: &mut String, title: &str, table: Table) {
    out.push('\n');
    out.push_str(title);
    out.push('\n');
    push_table(out, &table);
}

fn push_table(out: &mut String, table: &Table) {
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// The widest name of a line of the overview, and the gap after it.
const LABEL: usize = 12;

fn overview(inventory: &Inventory, style: &Style) -> String {
    let (host, cpu, memory) = (&inventory.host, &inventory.cpu, &inventory.memory);
    let mut out = String::new();
    let mut row = |name: &str, text: String| {
        if !text.is_empty() {
            wrap(&mut out, &format!("{name:<LABEL$}"), &text, usize::from(style.width));
        }
    };
    let name = if host.name.is_empty() { "(no name)" } else { &host.name };
    row("host", if inventory.simulated { format!("{name} (simulated)") } else { name.to_owned() });
    row("machine", join([host.product.clone(), host.hypervisor.as_ref().map(|by| virtual_machine(by))]));
    row("system", join([host.os.clone(), host.kernel.clone()]));
    row("cpu", cpu_name(cpu));
    row("cores", cores(cpu));
    for kind in &cpu.core_kinds {
        let clock = kind.max_mhz.map(|mhz| format!(", up to {}", ghz(mhz))).unwrap_or_default();
        row("", format!("{}: CPUs {}{clock}", kind.name, kind.cpus));
    }
    row("caches", caches(cpu));
    row("extensions", extensions(cpu));
    let mut text = memory.total.to_string();
    if let Some(available) = memory.available {
        let _ = write!(text, ", {available} available");
    }
    if !memory.swap.is_zero() {
        let _ = write!(text, ", {} swap", memory.swap);
    }
    if let Some(limit) = memory.limit {
        let _ = write!(text, "; this process may use {limit}");
    }
    row("memory", text);
    row("numa", numa_line(&inventory.numa));
    row("gpus", gpu_line(inventory, style));
    out
}

fn join<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn virtual_machine(by: &str) -> String {
    if by == "yes" { "virtual machine".into() } else { format!("virtual machine ({by})") }
}

fn cpu_name(cpu: &Cpu) -> String {
    let vendor = cpu.vendor.as_str();
    let name = match cpu.model.is_empty() {
        true => vendor.to_owned(),
        false if cpu.model.to_lowercase().contains(&vendor.to_lowercase()) => cpu.model.clone(),
        false => format!("{vendor} {}", cpu.model),
    };
    let architecture = (!cpu.architecture.is_empty()).then(|| cpu.architecture.clone());
    join([Some(name), architecture, cpu.max_mhz.map(|mhz| format!("up to {}", ghz(mhz)))])
}

fn ghz(mhz: u32) -> String {
    format!("{:.1} GHz", f64::from(mhz) / 1000.0)
}

fn counted(count: u32, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn cores(cpu: &Cpu) -> String {
    let mut text = format!(
        "{}, {}, {}",
        counted(cpu.sockets, "socket"),
        counted(cpu.cores, "core"),
        counted(cpu.threads, "thread")
    );
    if !cpu.offline.is_empty() {
        let _ = write!(text, "; offline: {}", cpu.offline);
    }
    if cpu.usable() < cpu.threads {
        let _ = write!(text, "; this process may use {}", cpu.usable());
    }
    text
}

fn caches(cpu: &Cpu) -> String {
    let one = |cache: &crate::inventory::Cache| format!("{} {} × {}", cache.label(), cache.count, cache.size);
    cpu.caches.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The extensions, with the AVX-512 family folded into one word: it has a dozen members.
fn extensions(cpu: &Cpu) -> String {
    let family: Vec<&str> =
        cpu.features.iter().filter_map(|feature| feature.as_str().strip_prefix("avx512")).collect();
    let mut words: Vec<String> = Vec::new();
    for feature in &cpu.features {
        match feature.as_str().strip_prefix("avx512") {
            None => words.push(feature.to_string()),
            Some(_) if *feature == IsaFeature::Avx512F => words.push(format!("avx512({})", family.join(" "))),
            Some(_) => {}
        }
    }
    words.join(" ")
}

fn numa_line(nodes: &[NumaNode]) -> String {
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    match nodes {
        [only] => format!("1 node, CPUs {}", only.cpus),
        _ => counted(count, "node"),
    }
}

fn counts(device: &Device, style: &Style) -> bool {
    device.kind.is_gpu() || (style.software_counts && device.kind == DeviceKind::SoftwareAdapter)
}

fn gpu_line(inventory: &Inventory, style: &Style) -> String {
    let gpus: Vec<&Device> = inventory.devices.iter().filter(|device| counts(device, style)).collect();
    let others = inventory.devices.iter().filter(|device| device.kind == DeviceKind::SoftwareAdapter).count();
    if gpus.is_empty() {
        return match others {
            0 => "none".into(),
            _ => "none (a software adapter can stand in)".into(),
        };
    }
    let count = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
    let vram: quark_base::ByteSize = gpus.iter().map(|gpu| gpu.vram).sum();
    let name = &gpus[0].name;
    let equal = gpus.iter().all(|gpu| &gpu.name == name);
    let what = if equal { format!("{count} × {name}") } else { count.to_string() };
    if vram.is_zero() { what } else { format!("{what}, {vram} VRAM") }
}

fn nodes(inventory: &Inventory, style: &Style) -> Table {
    let mut table = empty_table(style);
    table.set_header(["node", "CPUs", "memory", "devices", "distances"]);
    for node in &inventory.numa {
        let near = inventory
            .devices
            .iter()
            .filter(|device| device.numa_node == Some(node.id) && counts(device, style));
        let cpus =
            if node.cpus.is_empty() { "none".into() } else { format!("{} ({})", node.cpus, node.cpus.len()) };
        table.add_row([
            node.id.to_string(),
            cpus,
            if node.memory.is_zero() { "none".into() } else { node.memory.to_string() },
            near.count().to_string(),
            node.distances.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        ]);
    }
    align_right(&mut table, &[0, 2, 3]);
    table
}

/// The most devices that are shown with a row of their own; a host has eight, sixteen at most.
const MAX_ROWS: usize = 64;

fn devices(inventory: &Inventory, style: &Style) -> Table {
    let mut table = empty_table(style);
    table.set_header(["#", "device", "kind", "PCI", "node", "VRAM", "compute"]);
    for (at, device) in inventory.devices.iter().enumerate().take(MAX_ROWS) {
        table.add_row([
            at.to_string(),
            device.name.clone(),
            device.kind.to_string(),
            device.pci.map(|pci| pci.to_string()).unwrap_or_default(),
            device.numa_node.map(|node| node.to_string()).unwrap_or_default(),
            if device.vram.is_zero() { String::new() } else { device.vram.to_string() },
            device.compute_capability.map(|(major, minor)| format!("{major}.{minor}")).unwrap_or_default(),
        ]);
    }
    // The name alone gives way when the line is short: a broken address can't be copied.
    for at in [0, 2, 3, 4, 5, 6] {
        if let Some(column) = table.column_mut(at) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    align_right(&mut table, &[0, 4, 5, 6]);
    table
}

/// What the table has no room for, one line for all devices that are alike in it.
fn details(out: &mut String, inventory: &Inventory, style: &Style) {
    let mut groups: Vec<(String, CpuSet)> = Vec::new();
    for (at, device) in (0u32..).zip(inventory.devices.iter().take(MAX_ROWS)) {
        let text = detail(device);
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, members)) => {
                members.insert(at);
            }
            None => groups.push((text, CpuSet::from_iter([at]))),
        }
    }
    for (text, members) in groups {
        wrap(out, &format!("  #{members}  "), &text, usize::from(style.width));
    }
    if let Some(more) = inventory.devices.len().checked_sub(MAX_ROWS).filter(|more| *more > 0) {
        out.push_str(&format!("  and {more} more; --json has them all\n"));
    }
}

fn detail(device: &Device) -> String {
    let features = device.features.names().join(" ");
    let sources = device.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mig = device.mig.as_ref().filter(|mig| mig.enabled).map(|mig| match mig.instances.len() {
        0 => "MIG on, no instance".to_owned(),
        count => format!("MIG on, instances: {count}"),
    });
    let parts = [
        (!features.is_empty()).then_some(features),
        device.compute_units.map(|units| format!("{units} compute units")),
        device.limits.map(|limits| {
            format!("buffers to {}, bindings to {}", limits.max_buffer, limits.max_storage_binding)
        }),
        mig,
        device.driver.as_ref().map(|driver| format!("driver {driver}")),
        Some(format!("seen by {sources}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for at in columns {
        if let Some(column) = table.column_mut(*at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn notes(out: &mut String, inventory: &Inventory, style: &Style) {
    if inventory.notes.is_empty() {
        return;
    }
    out.push_str("\nNotes\n");
    for note in &inventory.notes {
        let mark = match (note.kind, style.unicode) {
            (NoteKind::Missing, true) => "·",
            (NoteKind::Missing, false) => "-",
            (NoteKind::Broken, _) => "!",
            (NoteKind::Discrepancy | NoteKind::Limit, true) => "→",
            (NoteKind::Discrepancy | NoteKind::Limit, false) => ">",
        };
        wrap(
            out,
            &format!("  {mark} "),
            &format!("{}: {}", note.source, note.text),
            usize::from(style.width),
        );
    }
}

fn wrap(out: &mut String, first: &str, text: &str, width: usize) {
    let indent = first.chars().count();
    let mut column = indent;
    out.push_str(first);
    for (at, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if at > 0 && column + 1 + length > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::simulated;
    use std::path::Path;

    fn shipped(name: &str) -> Inventory {
        simulated::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name)).unwrap()
    }

    #[test]
    fn the_h100_host_reads_well() {
        let text = table(&shipped("h100x8.toml"));
        for part in [
            "h100x8 (simulated)",
            "8 × NVIDIA H100 80GB HBM3 (simulated)",
            "2 nodes",
            "0-55,112-167 (112)",
            "10 21",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        for name in ["h100x8.toml", "laptop.toml", "dual-socket-cpu.toml", "l4x4.toml"] {
            for width in [MIN_WIDTH, 100, 160] {
                for line in table_with(&shipped(name), &Style::default().width(width)).lines() {
                    assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn ascii_has_no_box_characters() {
        let text = table_with(&shipped("l4x4.toml"), &Style::default().unicode(false));
        assert!(!text.contains(['│', '─', '╭', '→']));
    }
}
