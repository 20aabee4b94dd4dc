//! The machine's name, its system and its maker.

use super::{cpuinfo::CpuInfo, root::Root};
use crate::inventory::Host;

pub(super) fn probe(root: &Root, info: &CpuInfo) -> Host {
    let kernel = root.word("/proc/sys/kernel/osrelease").map(|release| {
        format!("{} {release}", root.word("/proc/sys/kernel/ostype").unwrap_or("Linux".into()))
    });
    let maker = root.word("/sys/class/dmi/id/sys_vendor");
    let product = root.word("/sys/class/dmi/id/product_name");
    let product = match (&maker, product) {
        (Some(maker), Some(product)) if !product.starts_with(maker.as_str()) => {
            Some(format!("{maker} {product}"))
        }
        (_, Some(product)) => Some(product),
        (maker, None) => maker.clone().or_else(|| root.word("/proc/device-tree/model")),
    };
    Host {
        name: root.word("/proc/sys/kernel/hostname").unwrap_or_default(),
        os: os(root),
        kernel,
        hypervisor: hypervisor(root, info, maker.as_deref()),
        product,
    }
}

fn os(root: &Root) -> Option<String> {
    let text = root.text("/etc/os-release").or_else(|| root.text("/usr/lib/os-release"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = line.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.to_owned())
}

fn hypervisor(root: &Root, info: &CpuInfo, maker: Option<&str>) -> Option<String> {
    let by_maker = match maker {
        Some("QEMU") => Some("qemu"),
        Some("VMware, Inc.") => Some("vmware"),
        Some("Xen") => Some("xen"),
        Some("Amazon EC2") if info.hypervisor => Some("ec2"),
        Some("Google") if info.hypervisor => Some("google"),
        Some("Microsoft Corporation") if info.hypervisor => Some("hyper-v"),
        _ => None,
    };
    root.word("/sys/hypervisor/type")
        .or_else(|| by_maker.map(str::to_owned))
        .or_else(|| info.hypervisor.then(|| "yes".to_owned()))
}
