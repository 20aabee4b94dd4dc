use super::*;
use crate::inventory::{DeviceKind, IsaFeature, Vendor};

fn shipped(name: &str) -> Inventory {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name)).unwrap()
}

#[test]
fn the_h100_host() {
    let host = shipped("h100x8.toml");
    assert!(host.simulated);
    assert_eq!((host.cpu.sockets, host.cpu.cores, host.cpu.threads), (2, 112, 224));
    assert_eq!(host.numa.len(), 2);
    assert_eq!(host.memory.total, ByteSize::gib(2048));
    assert_eq!(host.gpus().count(), 8);
    for (at, gpu) in host.gpus().enumerate() {
        assert!(gpu.simulated && gpu.name.ends_with("(simulated)"), "{}", gpu.name);
        assert_eq!(gpu.numa_node, Some(if at < 4 { 0 } else { 1 }));
        assert_eq!((gpu.compute_capability, gpu.compute_units), (Some((9, 0)), Some(132)));
        assert_eq!(gpu.vram, ByteSize::mib(81_559));
        assert!(gpu.features.bf16);
    }
    assert!(host.cpu.has(IsaFeature::AmxBf16));
    // The sibling of CPU 0 is CPU 112, on the same core and node.
    let (first, sibling) = (&host.cpu.logical[0], &host.cpu.logical[112]);
    assert_eq!((first.core, first.node, first.socket), (sibling.core, sibling.node, sibling.socket));
    assert_eq!(host.cpu.logical[56].node, Some(1));
}

#[test]
fn the_l4_host() {
    let host = shipped("l4x4.toml");
    assert_eq!(host.gpus().count(), 4);
    assert!(
        host.gpus().all(|gpu| gpu.compute_capability == Some((8, 9)) && gpu.vram == ByteSize::mib(23_034))
    );
}

#[test]
fn the_cpu_server_has_no_gpu() {
    let host = shipped("dual-socket-cpu.toml");
    assert_eq!((host.cpu.sockets, host.cpu.cores, host.cpu.threads), (2, 192, 384));
    assert_eq!(host.gpus().count(), 0);
    assert_eq!(host.numa.iter().map(|node| node.distances.clone()).collect::<Vec<_>>(), [[10, 32], [32, 10]]);
}

#[test]
fn the_laptop_is_hybrid() {
    let host = shipped("laptop.toml");
    assert_eq!((host.cpu.cores, host.cpu.threads), (14, 20));
    let kinds: Vec<_> = host.cpu.core_kinds.iter().map(|kind| kind.cpus.to_string()).collect();
    assert_eq!(kinds, ["0-11", "12-19"]);
    let kinds: Vec<_> = host.gpus().map(|gpu| gpu.kind).collect();
    assert_eq!(kinds, [DeviceKind::Gpu, DeviceKind::IntegratedGpu]);
    assert!(host.gpus().any(|gpu| gpu.vendor == Vendor::Intel));
}

#[test]
fn a_simulated_inventory_survives_json() {
    for name in ["h100x8.toml", "l4x4.toml", "dual-socket-cpu.toml", "laptop.toml"] {
        let host = shipped(name);
        let text = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), host);
    }
}

const GOOD: &str = r#"name = "small"
[cpu]
vendor = "AMD"
model = "m"
architecture = "x86_64"
cores_per_socket = 4
[[numa]]
id = 0
cpus = "0-3"
memory = "8 GiB"
"#;

/// Each wrong file, the line it is wrong in, and a word its message must have.
#[test]
fn every_mistake_is_one_line_with_path_and_line() {
    assert!(parse(GOOD).is_ok());
    let gpu = "[[gpu]]\nname = \"g\"\nvendor = \"NVIDIA\"\nvram = \"8 GiB\"\n";
    let cases = [
        (GOOD.replace("0-3", "0-9"), 7, "4-9"),
        (GOOD.replace("0-3", "0-2"), 2, "no [[numa]] node"),
        (GOOD.replace("0-3", "3-0"), 9, "CPU list"),
        (GOOD.replace("8 GiB", "8 GoB"), 10, "2 GiB"),
        (GOOD.replace("cores_per_socket = 4", "cores_per_socket = 0"), 6, "nonzero"),
        (GOOD.replace("cores_per_socket = 4", "cores_per_socket = 4000000000"), 2, "4096"),
        (GOOD.replace("model", "modle"), 4, "modle"),
        (GOOD.replace("[cpu]", "[cpu"), 2, ""),
        (format!("{GOOD}distances = [10, 20]\n"), 7, "distances"),
        (format!("{GOOD}{gpu}numa_node = 7\n"), 11, "NUMA node 7"),
        (format!("{GOOD}{gpu}pci = \"zz\"\n"), 15, "0000:3b:00.0"),
        (format!("{GOOD}{gpu}pci = \"3b:00.0\"\n{gpu}pci = \"0:3b:00.0\"\n"), 16, "twice"),
        (format!("{GOOD}[[cpu.cache]]\nlevel = 1\nsize = \"1 KiB\"\ncount = 4000000000\n"), 14, "4096"),
        ("name = \"x\"\n".to_owned(), 1, "cpu"),
        (String::new(), 1, "name"),
    ];
    for (text, line, word) in cases {
        let problem = parse(&text).map(|_| ()).map_err(|problem| {
            invalid(Path::new("bad.toml"), text.as_bytes(), problem.at.start, &problem.text).to_string()
        });
        let message = problem.expect_err(&text);
        assert!(message.starts_with(&format!("bad.toml:{line}: ")), "{message}\n{text}");
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn an_unreadable_file_says_where_examples_are() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.toml"), folder.path().to_owned()] {
        let message = load(&path).unwrap_err().to_string();
        assert!(
            message.contains("devices/topologies/") && message.contains(path.to_str().unwrap()),
            "{message}"
        );
    }
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"name = \"x\"\n\xff\xfe").unwrap();
    assert!(load(&binary).unwrap_err().to_string().contains("binary.toml:2: "));
}

proptest::proptest! {
    /// One line of a good file replaced by anything: taken or refused, with a line that is in the file.
    #[test]
    fn any_damage_is_taken_or_refused(at in 0usize..10, line in ".{0,40}|[a-z]{1,8} = -?[0-9]{1,25}") {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        lines[at] = &line;
        let text = lines.join("\n");
        if let Err(problem) = parse(&text) {
            let message = invalid(Path::new("x.toml"), text.as_bytes(), problem.at.start, &problem.text).to_string();
            let found: usize = message.split(':').nth(1).unwrap().parse().unwrap();
            proptest::prop_assert!((1..=text.lines().count() + 1).contains(&found), "{}", message);
        }
    }
}
