use super::*;

fn view(source: Source, index: u32) -> PartialDevice {
    let mut view = PartialDevice::new(source);
    view.index = Some(index);
    view.vendor = Some(Vendor::Nvidia);
    view.kind = Some(DeviceKind::Gpu);
    view
}

fn at(mut view: PartialDevice, pci: &str) -> PartialDevice {
    view.pci = Some(pci.parse().unwrap());
    view
}

fn named(mut view: PartialDevice, name: &str) -> PartialDevice {
    view.name = Some(name.into());
    view
}

fn with_uuid(mut view: PartialDevice, uuid: &str) -> PartialDevice {
    view.uuid = Some(uuid.into());
    view
}

/// Every order of up to five views gives the same result.
fn merge_in_every_order(views: &[PartialDevice]) -> Merged {
    let expected = merge(views.to_vec());
    let mut orders = vec![Vec::new()];
    for view in views {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<PartialDevice>| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, view.clone());
                    longer
                })
            })
            .collect();
    }
    for order in orders {
        assert_eq!(merge(order), expected);
    }
    expected
}

#[test]
fn one_card_seen_by_five_sources_is_one_device() {
    let mut nvml =
        with_uuid(named(at(view(Source::Nvml, 0), "00000000:3B:00.0"), "NVIDIA L4"), "GPU-8F1C2d3e-00");
    nvml.vram = Some(ByteSize::gib(23));
    let mut cuda = with_uuid(view(Source::Cuda, 0), "gpu-8f1c2d3e-00".trim_start_matches("gpu-"));
    cuda.compute_capability = Some((8, 9));
    let mut vulkan = named(at(view(Source::Wgpu, 1), "0000:3b:00.0"), "NVIDIA L4");
    vulkan.features.timestamps = true;
    let mut sysfs = at(PartialDevice::new(Source::Sysfs), "0000:3b:00.0");
    sysfs.numa_node = Some(1);
    let procfs = with_uuid(at(PartialDevice::new(Source::Procfs), "3b:00.0"), "GPU-8f1c2d3e-00");
    let merged = merge_in_every_order(&[nvml, cuda, vulkan, sysfs, procfs]);
    assert_eq!(merged.devices.len(), 1, "{merged:?}");
    let card = &merged.devices[0];
    assert_eq!(card.id.as_str(), "GPU-8F1C2d3e-00");
    assert_eq!(
        (card.vram, card.numa_node, card.compute_capability),
        (ByteSize::gib(23), Some(1), Some((8, 9)))
    );
    assert_eq!(card.indices, SourceIndices { nvml: Some(0), cuda: Some(0), wgpu: Some(1) });
    assert_eq!(card.sources, [Source::Nvml, Source::Cuda, Source::Wgpu, Source::Sysfs, Source::Procfs]);
    assert!(card.features.timestamps && merged.notes.is_empty());
}

#[test]
fn a_view_with_both_names_ties_two_groups_together() {
    let by_address = at(view(Source::Sysfs, 0), "3b:00.0");
    let by_uuid = with_uuid(view(Source::Cuda, 0), "GPU-1");
    let both = with_uuid(at(view(Source::Nvml, 0), "3b:00.0"), "GPU-1");
    assert_eq!(merge_in_every_order(&[by_address, by_uuid, both]).devices.len(), 1);
}

#[test]
fn two_equal_cards_without_addresses_are_paired_in_bus_order_and_it_is_said() {
    let views = [
        at(named(view(Source::Nvml, 1), "NVIDIA L4"), "af:00.0"),
        at(named(view(Source::Nvml, 0), "NVIDIA L4"), "3b:00.0"),
        named(view(Source::Wgpu, 0), "NVIDIA L4"),
        named(view(Source::Wgpu, 1), "NVIDIA L4"),
    ];
    let merged = merge_in_every_order(&views);
    let seen: Vec<_> = merged.devices.iter().map(|card| (card.pci.unwrap().bus, card.indices.wgpu)).collect();
    assert_eq!(seen, [(0x3b, Some(0)), (0xaf, Some(1))]);
    assert!(merged.notes.iter().any(|note| note.text.contains("bus order")), "{:?}", merged.notes);
}

#[test]
fn when_the_counts_differ_no_card_is_counted_twice() {
    let views = [
        at(named(view(Source::Nvml, 0), "NVIDIA L4"), "3b:00.0"),
        at(named(view(Source::Nvml, 1), "NVIDIA L4"), "af:00.0"),
        named(view(Source::Wgpu, 0), "NVIDIA L4"),
    ];
    let merged = merge_in_every_order(&views);
    assert_eq!(merged.devices.len(), 2);
    assert!(merged.devices.iter().all(|card| card.indices.wgpu.is_none()));
    assert!(merged.notes[0].text.contains("can't be told"));
}

#[test]
fn a_single_card_is_found_by_name_without_a_note() {
    let merged = merge(vec![
        at(named(view(Source::Nvml, 0), "NVIDIA GeForce RTX 4060 Laptop GPU"), "01:00.0"),
        named(view(Source::Wgpu, 0), "NVIDIA GeForce RTX 4060 Laptop GPU (NVK AD107)"),
    ]);
    assert_eq!((merged.devices.len(), merged.notes.len()), (1, 0));
}

#[test]
fn a_software_adapter_is_a_device_of_its_own_and_no_gpu() {
    let mut llvmpipe = named(view(Source::Wgpu, 0), "llvmpipe (LLVM 19.1.7, 256 bits)");
    llvmpipe.vendor = Some(Vendor::Mesa);
    llvmpipe.kind = Some(DeviceKind::SoftwareAdapter);
    let merged = merge(vec![llvmpipe, at(view(Source::Sysfs, 0), "3b:00.0")]);
    assert_eq!(merged.devices.len(), 2);
    assert_eq!(merged.devices.iter().filter(|device| device.kind.is_gpu()).count(), 1);
    assert_eq!(merged.devices[1].id.as_str(), "wgpu:0:llvmpipe (LLVM 19.1.7, 256 bits)");
}

#[test]
fn a_mig_instance_seen_by_cuda_stays_part_of_its_card() {
    let merged = merge(vec![
        with_uuid(at(view(Source::Nvml, 0), "3b:00.0"), "GPU-1"),
        with_uuid(at(view(Source::Cuda, 0), "3b:00.0"), "MIG-2"),
    ]);
    assert_eq!(merged.devices.len(), 1);
    assert_eq!(merged.devices[0].id.as_str(), "GPU-1");
}

#[test]
fn one_card_behind_two_drivers_is_one_device() {
    let merged = merge(vec![at(view(Source::Wgpu, 0), "3b:00.0"), at(view(Source::Wgpu, 1), "3b:00.0")]);
    assert_eq!((merged.devices.len(), merged.devices[0].indices.wgpu), (1, Some(0)));
    assert!(merged.notes[0].text.contains("the first is used"));
}

#[test]
fn disagreement_about_the_node_is_noted_and_the_kernel_believed() {
    let mut nvml = at(view(Source::Nvml, 0), "3b:00.0");
    nvml.numa_node = Some(0);
    let mut sysfs = at(view(Source::Sysfs, 0), "3b:00.0");
    sysfs.numa_node = Some(1);
    let merged = merge(vec![nvml, sysfs]);
    assert_eq!(merged.devices[0].numa_node, Some(1));
    assert!(merged.notes[0].text.contains("NUMA"));
}
