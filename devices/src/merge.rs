//! Several libraries' views become one list of devices, each physical card once.
//!
//! 1. Views with a PCI address or a UUID join whoever has the same address or the same UUID. An address is
//!    physical, so it joins even when the UUIDs differ (a MIG instance reports its own).
//! 2. Views with neither (a Vulkan driver without `VK_EXT_pci_bus_info`) are compared by vendor and by PCI
//!    device id or name. As many such views as cards: they are paired in order, since drivers enumerate in
//!    bus order; with more than one pair a note says that this was assumed. Any other count: nobody can tell
//!    which is which, so the views are dropped with a note. A card counted twice would have its memory
//!    granted twice, which is worse than a card that one library can't open.
//! 3. Where nothing resembles such a view, it is a device of its own.

use crate::inventory::{
    Device, DeviceId, DeviceKind, Note, NoteKind, PartialDevice, PciAddress, Source, SourceIndices, Vendor,
};
use quark_base::ByteSize;

/// What [`merge`] makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The devices: GPUs first, by PCI address.
    pub devices: Vec<Device>,
    /// What had to be decided.
    pub notes: Vec<Note>,
}

/// Joins the views. The result does not depend on the order of `partials`.
pub fn merge(mut partials: Vec<PartialDevice>) -> Merged {
    partials.sort_by(|a, b| {
        (a.source, a.index, a.pci, &a.uuid, &a.name).cmp(&(b.source, b.index, b.pci, &b.uuid, &b.name))
    });
    let (known, anonymous): (Vec<_>, Vec<_>) = partials.into_iter().partition(has_identity);
    let mut notes = Vec::new();
    let mut groups = join_known(known);
    place_anonymous(&mut groups, anonymous, &mut notes);
    let mut devices: Vec<Device> = groups.into_iter().map(|group| device(group, &mut notes)).collect();
    devices.sort_by(|a, b| {
        (!a.kind.is_gpu(), a.kind, a.pci.is_none(), a.pci, a.indices.wgpu, &a.id).cmp(&(
            !b.kind.is_gpu(),
            b.kind,
            b.pci.is_none(),
            b.pci,
            b.indices.wgpu,
            &b.id,
        ))
    });
    Merged { devices, notes }
}

/// The views of one device, best source first.
type Group = Vec<PartialDevice>;

fn has_identity(view: &PartialDevice) -> bool {
    view.kind != Some(DeviceKind::SoftwareAdapter) && (view.pci.is_some() || view.uuid.is_some())
}

fn join_known(views: Vec<PartialDevice>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for view in views {
        // A view with both names can tie together a group known by address and one known by UUID.
        let (mut same, others): (Vec<Group>, Vec<Group>) =
            groups.into_iter().partition(|group| group.iter().any(|member| same_device(member, &view)));
        groups = others;
        let mut group: Group = same.drain(..).flatten().collect();
        group.push(view);
        group.sort_by_key(|member| (member.source, member.index));
        groups.push(group);
    }
    groups.sort_by_key(|group| (address(group), group[0].source, group[0].index));
    groups
}

fn same_device(a: &PartialDevice, b: &PartialDevice) -> bool {
    match (a.pci, b.pci) {
        (Some(one), Some(other)) => one == other,
        _ => {
            matches!((&a.uuid, &b.uuid), (Some(one), Some(other)) if canonical_uuid(one) == canonical_uuid(other))
        }
    }
}

/// NVML writes "GPU-8F1C…", Vulkan the bare digits: the digits decide.
fn canonical_uuid(uuid: &str) -> String {
    uuid.trim()
        .trim_start_matches("GPU-")
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

fn address(group: &[PartialDevice]) -> Option<PciAddress> {
    group.iter().find_map(|view| view.pci)
}

fn place_anonymous(groups: &mut Vec<Group>, mut views: Vec<PartialDevice>, notes: &mut Vec<Note>) {
    let named = groups.len();
    while !views.is_empty() {
        let first = views.remove(0);
        let (mut alike, rest): (Vec<_>, Vec<_>) =
            views.into_iter().partition(|view| view.source == first.source && same_model(view, &first));
        views = rest;
        alike.insert(0, first);
        let software = alike[0].kind == Some(DeviceKind::SoftwareAdapter);
        let candidates: Vec<usize> = (0..named)
            .filter(|at| !software && resembles(&groups[*at], &alike[0]))
            .filter(|at| groups[*at].iter().all(|member| member.source != alike[0].source))
            .collect();
        if candidates.is_empty() {
            groups.extend(alike.into_iter().map(|view| vec![view]));
        } else if candidates.len() == alike.len() {
            if candidates.len() > 1 {
                notes.push(Note::new(Source::Merge, NoteKind::Discrepancy, paired(&alike)));
            }
            for (at, view) in candidates.into_iter().zip(alike) {
                groups[at].push(view);
                groups[at].sort_by_key(|member| (member.source, member.index));
            }
        } else {
            notes.push(Note::new(Source::Merge, NoteKind::Discrepancy, untold(&alike, candidates.len())));
        }
    }
}

fn paired(alike: &[PartialDevice]) -> String {
    format!(
        "{} gives no PCI address for {} equal devices {:?}: they are taken in bus order",
        alike[0].source,
        alike.len(),
        name_of(&alike[0])
    )
}

fn untold(alike: &[PartialDevice], cards: usize) -> String {
    format!(
        "{} shows {:?} {} times without a PCI address and {cards} such cards are known: which is which can't be told, so {} is not used for them",
        alike[0].source,
        name_of(&alike[0]),
        alike.len(),
        alike[0].source,
    )
}

fn name_of(view: &PartialDevice) -> &str {
    view.name.as_deref().unwrap_or("device without a name")
}

fn same_model(a: &PartialDevice, b: &PartialDevice) -> bool {
    a.kind == b.kind && a.name == b.name && a.vendor == b.vendor && a.pci_ids == b.pci_ids
}

/// Whether a view without identity could be of this group's card.
fn resembles(group: &[PartialDevice], view: &PartialDevice) -> bool {
    let vendor = group.iter().find_map(|member| member.vendor.as_ref());
    if vendor.is_none() || vendor != view.vendor.as_ref() {
        return false;
    }
    let ids = group.iter().find_map(|member| member.pci_ids);
    if let (Some(ids), Some(other)) = (ids, view.pci_ids) {
        return ids == other;
    }
    let names: Vec<String> =
        group.iter().filter_map(|member| member.name.as_deref()).map(canonical_name).collect();
    match view.name.as_deref().map(canonical_name) {
        Some(name) if !names.is_empty() => {
            names.iter().any(|known| known.contains(&name) || name.contains(known))
        }
        _ => true,
    }
}

/// Vulkan adds the driver in brackets ("AMD Radeon RX 7900 XTX (RADV NAVI31)").
fn canonical_name(name: &str) -> String {
    let name = name.split('(').next().unwrap_or(name);
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Best source first for names, memory and identity.
const LIBRARIES_FIRST: [Source; 7] = [
    Source::Simulated,
    Source::Nvml,
    Source::Cuda,
    Source::Procfs,
    Source::Wgpu,
    Source::Sysfs,
    Source::Hwloc,
];
/// The graphics API alone tells a card from processor graphics.
const API_FIRST: [Source; 7] = [
    Source::Simulated,
    Source::Wgpu,
    Source::Nvml,
    Source::Cuda,
    Source::Procfs,
    Source::Sysfs,
    Source::Hwloc,
];
/// The kernel knows where a card sits; libraries repeat it.
const KERNEL_FIRST: [Source; 7] = [
    Source::Simulated,
    Source::Hwloc,
    Source::Sysfs,
    Source::Nvml,
    Source::Cuda,
    Source::Procfs,
    Source::Wgpu,
];

fn pick<T>(
    group: &[PartialDevice],
    order: &[Source],
    field: impl Fn(&PartialDevice) -> Option<T>,
) -> Option<T> {
    order.iter().find_map(|source| group.iter().filter(|view| view.source == *source).find_map(&field))
}

fn index(group: &[PartialDevice], source: Source) -> Option<u32> {
    pick(group, &[source], |view| view.index)
}

fn device(group: Group, notes: &mut Vec<Note>) -> Device {
    let pci = address(&group);
    let uuid =
        pick(&group, &LIBRARIES_FIRST, |view| view.uuid.clone().filter(|uuid| !uuid.starts_with("MIG-")))
            .or_else(|| pick(&group, &LIBRARIES_FIRST, |view| view.uuid.clone()));
    let vendor =
        pick(&group, &API_FIRST, |view| view.vendor.clone()).unwrap_or(Vendor::Other("unknown".into()));
    let pci_ids = pick(&group, &KERNEL_FIRST, |view| view.pci_ids);
    let name = pick(&group, &LIBRARIES_FIRST, |view| view.name.clone()).unwrap_or_else(|| match pci_ids {
        Some((_, product)) => format!("{vendor} device {product:#06x}"),
        None => format!("{vendor} device"),
    });
    let indices = SourceIndices {
        nvml: index(&group, Source::Nvml),
        cuda: index(&group, Source::Cuda),
        wgpu: index(&group, Source::Wgpu),
    };
    let id = match (&uuid, pci) {
        (Some(uuid), _) => uuid.clone(),
        (None, Some(pci)) => pci.to_string(),
        (None, None) => {
            let view = &group[0];
            format!("{}:{}:{name}", view.source, view.index.unwrap_or(0))
        }
    };
    note_doubts(&group, &name, notes);
    let mut sources: Vec<Source> = group.iter().map(|view| view.source).collect();
    sources.dedup();
    Device {
        id: DeviceId::new(id),
        kind: pick(&group, &API_FIRST, |view| view.kind).unwrap_or(DeviceKind::Other),
        vendor,
        uuid,
        pci,
        pci_ids,
        numa_node: pick(&group, &KERNEL_FIRST, |view| view.numa_node),
        vram: pick(&group, &LIBRARIES_FIRST, |view| view.vram).unwrap_or(ByteSize::ZERO),
        compute_capability: pick(&group, &LIBRARIES_FIRST, |view| view.compute_capability),
        compute_units: pick(&group, &LIBRARIES_FIRST, |view| view.compute_units),
        driver: pick(&group, &LIBRARIES_FIRST, |view| view.driver.clone()),
        features: group.iter().fold(Default::default(), |all, view| view.features.union(all)),
        limits: pick(&group, &API_FIRST, |view| view.limits),
        mig: pick(&group, &LIBRARIES_FIRST, |view| view.mig.clone()),
        indices,
        simulated: group.iter().all(|view| view.source == Source::Simulated),
        sources,
        name,
    }
}

fn note_doubts(group: &[PartialDevice], name: &str, notes: &mut Vec<Note>) {
    let mut nodes: Vec<(u32, Source)> =
        group.iter().filter_map(|view| Some((view.numa_node?, view.source))).collect();
    nodes.sort_unstable();
    nodes.dedup_by_key(|(node, _)| *node);
    if nodes.len() > 1 {
        let said: Vec<String> = nodes.iter().map(|(node, source)| format!("{source} says {node}")).collect();
        notes.push(Note::new(
            Source::Merge,
            NoteKind::Discrepancy,
            format!(
                "{name}: sources disagree about its NUMA node ({}); the kernel is believed",
                said.join(", ")
            ),
        ));
    }
    for (at, view) in group.iter().enumerate() {
        let twice = group[..at].iter().find(|other| other.source == view.source && other.index != view.index);
        if let Some(first) = twice {
            notes.push(Note::new(
                Source::Merge,
                NoteKind::Discrepancy,
                format!(
                    "{name}: {} shows it as {} and as {}; the first is used",
                    view.source,
                    first.index.unwrap_or(0),
                    view.index.unwrap_or(0)
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests;
