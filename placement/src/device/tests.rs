use super::*;
use proptest::prelude::*;
use quark_devices::inventory::{Cpu, DeviceFeatures, Host, Memory, NumaNode, SourceIndices, Vendor};

fn gpu(id: &str, name: &str, gib: u64) -> Device {
    Device {
        id: DeviceId::new(id),
        kind: DeviceKind::Gpu,
        name: name.into(),
        vendor: Vendor::Nvidia,
        uuid: None,
        pci: None,
        pci_ids: None,
        numa_node: None,
        vram: ByteSize::gib(gib),
        compute_capability: Some((8, 9)),
        compute_units: None,
        driver: None,
        features: DeviceFeatures { f16: true, bf16: true, ..DeviceFeatures::default() },
        limits: None,
        mig: None,
        indices: SourceIndices { nvml: None, cuda: Some(0), wgpu: Some(0) },
        sources: vec![],
        simulated: false,
    }
}

fn llvmpipe() -> Device {
    Device {
        kind: DeviceKind::SoftwareAdapter,
        vendor: Vendor::Mesa,
        compute_capability: None,
        features: DeviceFeatures { f16: true, ..DeviceFeatures::default() },
        indices: SourceIndices { wgpu: Some(1), ..SourceIndices::default() },
        ..gpu("wgpu:1:llvmpipe", "llvmpipe", 0)
    }
}

fn machine(devices: Vec<Device>) -> Inventory {
    Inventory {
        host: Host::default(),
        cpu: Cpu::default(),
        numa: vec![NumaNode::default()],
        memory: Memory { total: ByteSize::gib(16), ..Memory::default() },
        devices,
        notes: vec![],
        simulated: false,
    }
}

fn books(device: &Device, capacity: ByteSize, free: ByteSize) -> DeviceUsage {
    DeviceUsage {
        device: device.id.clone(),
        capacity,
        reserve: ByteSize::ZERO,
        granted: capacity.saturating_sub(free),
        debited: ByteSize::ZERO,
        foreign: ByteSize::ZERO,
        free,
        overcommitted: ByteSize::ZERO,
        read_at: None,
        leases: vec![],
    }
}

const TWO_GIB: GpuNeed = GpuNeed::new(2 << 30);

fn choose(inventory: &Inventory, usage: &[DeviceUsage], need: &GpuNeed) -> Result<String, NoDevice> {
    choose_device(inventory, usage, need, &DeviceHint::default())
        .map(|chosen| chosen.device.as_str().to_owned())
}

#[test]
fn the_refusal_names_the_requirement_and_what_each_device_lacked() {
    let l4 = gpu("GPU-1", "NVIDIA L4", 24);
    let usage = [books(&l4, ByteSize::gib(24), ByteSize::mib(1229))];
    let error = choose(&machine(vec![l4.clone(), llvmpipe()]), &usage, &TWO_GIB).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no device fits gpu(vram = 2 GiB): NVIDIA L4 has 1.20 GiB free of 24 GiB; llvmpipe is a software adapter \
         (gpu(software) would allow it)"
    );
    assert_eq!(error.full_devices().collect::<Vec<_>>(), [&l4.id]);
}

#[test]
fn with_no_device_at_all_the_refusal_says_what_to_do() {
    let text = choose(&machine(vec![]), &[], &TWO_GIB).unwrap_err().to_string();
    assert!(
        text.starts_with("no device fits gpu(vram = 2 GiB): this machine has no GPU; make it gpu(optional)")
    );
}

#[test]
fn equal_refusals_are_one_statement_and_many_are_counted() {
    let h100s = (0..8).map(|i| gpu(&format!("GPU-{i}"), "NVIDIA H100", 80)).collect();
    let text = choose(&machine(h100s), &[], &GpuNeed::new(100 << 30)).unwrap_err().to_string();
    assert_eq!(text, "no device fits gpu(vram = 100 GiB): each of 8 NVIDIA H100 has 80 GiB to lease in all");

    let zoo = (0..20).map(|i| gpu(&format!("GPU-{i}"), &format!("card {i}"), 1)).collect();
    let text = choose(&machine(zoo), &[], &TWO_GIB).unwrap_err().to_string();
    assert!(text.ends_with("; and 12 more"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn each_filter_refuses_with_its_own_lack() {
    let base = || gpu("GPU-1", "card", 24);
    let need = TWO_GIB;
    let lack = |device: Device, need: GpuNeed, hint: DeviceHint| {
        let error = choose_device(&machine(vec![device]), &[], &need, &hint).unwrap_err();
        error.lacked.into_iter().next().unwrap().lack
    };
    let hint = DeviceHint::default;
    let other = DeviceHint { only: Some(DeviceId::new("GPU-2")), ..hint() };
    assert_eq!(lack(base(), need, other), Lack::NotAsked);
    let display = DeviceKind::Display;
    assert_eq!(lack(Device { kind: display, ..base() }, need, hint()), Lack::NotAGpu { kind: display });
    assert_eq!(lack(llvmpipe(), need, hint()), Lack::SoftwareOnly);
    assert_eq!(lack(Device { simulated: true, ..base() }, need, hint()), Lack::Simulated);
    let unseen = Device { indices: SourceIndices::default(), ..base() };
    assert_eq!(lack(unseen, need, hint()), Lack::NoDriver { api: Api::Any });
    let cuda_only = DeviceHint { api: Api::Cuda, ..hint() };
    assert_eq!(lack(llvmpipe(), need.software(), cuda_only), Lack::NoDriver { api: Api::Cuda });
    let has = Some((8, 9));
    assert_eq!(lack(base(), need.capability(9, 0), hint()), Lack::Capability { has, needs: (9, 0) });
    let plain = Device { features: DeviceFeatures::default(), ..base() };
    assert_eq!(lack(plain.clone(), need.f16(), hint()), Lack::Feature { name: "f16" });
    assert_eq!(lack(plain, need.bf16(), hint()), Lack::Feature { name: "bf16" });
    let node_1 = need.numa(NumaPreference::Node(1));
    let on_0 = Device { numa_node: Some(0), ..base() };
    assert_eq!(lack(on_0, node_1, hint()), Lack::Numa { has: Some(0), needs: 1 });
    let needs = ByteSize::gib(25);
    let too_big = GpuNeed::new(needs.as_u64());
    assert_eq!(lack(base(), too_big, hint()), Lack::VramTooSmall { has: ByteSize::gib(24), needs });
}

#[test]
fn a_gpu_comes_before_a_software_adapter_however_full() {
    let card = gpu("GPU-1", "card", 24);
    let usage = [books(&card, ByteSize::gib(24), ByteSize::gib(2))];
    let chosen = choose(&machine(vec![llvmpipe(), card]), &usage, &TWO_GIB.software());
    assert_eq!(chosen.unwrap(), "GPU-1");
    assert_eq!(choose(&machine(vec![llvmpipe()]), &[], &TWO_GIB.software()).unwrap(), "wgpu:1:llvmpipe");
}

#[test]
fn a_software_adapter_without_books_may_use_main_memory() {
    let error = choose(&machine(vec![llvmpipe()]), &[], &GpuNeed::new(17 << 30).software()).unwrap_err();
    let expected = Lack::VramTooSmall { has: ByteSize::gib(16), needs: ByteSize::gib(17) };
    assert_eq!(error.lacked[0].lack, expected);
}

#[test]
fn leases_spread_over_equal_cards() {
    let cards: Vec<Device> = (0..2).map(|i| gpu(&format!("GPU-{i}"), "card", 24)).collect();
    let usage = [
        books(&cards[0], ByteSize::gib(24), ByteSize::gib(10)),
        books(&cards[1], ByteSize::gib(24), ByteSize::gib(20)),
    ];
    assert_eq!(choose(&machine(cards), &usage, &TWO_GIB).unwrap(), "GPU-1");
}

#[test]
fn local_prefers_the_callers_node_and_a_loaded_model_goes_before_that() {
    let on = |i: u32| Device { numa_node: Some(i), ..gpu(&format!("GPU-{i}"), "card", 24) };
    let inventory = machine(vec![on(0), on(1), on(2)]);
    let near = DeviceHint { near_node: Some(1), ..DeviceHint::default() };
    let local = TWO_GIB.numa(NumaPreference::Local);
    let chosen = choose_device(&inventory, &[], &local, &near).unwrap();
    assert_eq!((chosen.device.as_str(), chosen.numa_node), ("GPU-1", Some(1)));
    assert_eq!(choose_device(&inventory, &[], &TWO_GIB, &near).unwrap().device.as_str(), "GPU-0");
    let loaded = DeviceHint { prefer: Some(DeviceId::new("GPU-2")), ..near };
    assert_eq!(choose_device(&inventory, &[], &local, &loaded).unwrap().device.as_str(), "GPU-2");
}

#[test]
fn the_explanation_shows_all_candidates() {
    let card = gpu("GPU-1", "NVIDIA L4", 24);
    let chosen =
        choose_device(&machine(vec![llvmpipe(), card]), &[], &TWO_GIB, &DeviceHint::default()).unwrap();
    assert_eq!(
        chosen.explanation.to_string(),
        "gpu(vram = 2 GiB), by hardware, preference, NUMA node, free memory\n  taken    NVIDIA L4 [GPU-1]: score \
         9.000\n  refused  llvmpipe [wgpu:1:llvmpipe]: is a software adapter (gpu(software) would allow it)"
    );
}

fn any_device() -> impl Strategy<Value = (Device, u64)> {
    let kinds = prop_oneof![
        4 => Just(DeviceKind::Gpu),
        1 => Just(DeviceKind::IntegratedGpu),
        1 => Just(DeviceKind::SoftwareAdapter),
        1 => Just(DeviceKind::Display),
    ];
    let shape = (kinds, 0..32_u64, 0..=100_u64, proptest::option::of((6..10_u32, 0..2_u32)));
    let rest = (any::<[bool; 4]>(), proptest::option::of(0..3_u32), any::<bool>());
    (shape, rest).prop_map(|((kind, gib, free_percent, capability), (flags, numa_node, simulated))| {
        let device = Device {
            kind,
            compute_capability: capability,
            features: DeviceFeatures { f16: flags[0], bf16: flags[1], ..DeviceFeatures::default() },
            indices: SourceIndices { nvml: None, cuda: flags[2].then_some(0), wgpu: flags[3].then_some(0) },
            numa_node,
            simulated,
            ..gpu("", "card", gib)
        };
        (device, free_percent)
    })
}

fn any_need() -> impl Strategy<Value = GpuNeed> {
    let numa = prop_oneof![
        2 => Just(NumaPreference::Any), 2 => Just(NumaPreference::Local), 1 => (0..3_u32).prop_map(NumaPreference::Node)
    ];
    (0..20_u64, numa, proptest::option::of((6..10_u32, 0..2_u32)), any::<[bool; 4]>()).prop_map(
        |(gib, numa, min_capability, [f16, bf16, allow_software, optional])| GpuNeed {
            vram: ByteSize::gib(gib),
            numa,
            optional,
            min_capability,
            f16,
            bf16,
            allow_software,
        },
    )
}

proptest! {
    #[test]
    fn a_choice_satisfies_the_need_and_a_refusal_accounts_for_every_device(
        parts in proptest::collection::vec(any_device(), 0..6), need in any_need(), near_node in proptest::option::of(0..3_u32),
    ) {
        let mut devices = Vec::new();
        let mut usage = Vec::new();
        for (i, (device, free_percent)) in parts.into_iter().enumerate() {
            let device = Device { id: DeviceId::new(format!("d{i}")), ..device };
            let free = ByteSize::bytes(device.vram.as_u64() / 100 * free_percent);
            usage.push(books(&device, device.vram, free));
            devices.push(device);
        }
        let inventory = machine(devices);
        let hint = DeviceHint { near_node, ..DeviceHint::default() };
        match choose_device(&inventory, &usage, &need, &hint) {
            Ok(chosen) => {
                let device = inventory.device(&chosen.device).unwrap();
                let free = usage.iter().find(|books| books.device == device.id).unwrap().free;
                prop_assert!(free >= need.vram && !device.simulated);
                prop_assert!(device.kind.is_gpu() || (need.allow_software && device.kind == DeviceKind::SoftwareAdapter));
                prop_assert!(need.min_capability.is_none_or(|needs| device.compute_capability.unwrap() >= needs));
                prop_assert!((!need.f16 || device.features.f16) && (!need.bf16 || device.features.bf16));
                prop_assert!(device.indices.cuda.is_some() || device.indices.wgpu.is_some());
                if let NumaPreference::Node(node) = need.numa {
                    prop_assert_eq!(device.numa_node, Some(node));
                }
                prop_assert_eq!(chosen.explanation.candidates.len(), inventory.devices.len());
            }
            Err(error) => {
                prop_assert_eq!(error.lacked.len(), inventory.devices.len());
                prop_assert_eq!(error.to_string().lines().count(), 1);
                for full in error.full_devices() {
                    let all_free = usage.iter().map(|books| DeviceUsage { free: books.capacity, ..books.clone() });
                    let only = DeviceHint { only: Some(full.clone()), ..DeviceHint::default() };
                    prop_assert!(choose_device(&inventory, &all_free.collect::<Vec<_>>(), &need, &only).is_ok());
                }
            }
        }
    }
}
