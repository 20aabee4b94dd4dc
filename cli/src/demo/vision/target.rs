//! Which of the machine's devices the demo runs on.

use std::sync::Arc;

use quark::ByteSize;
use quark::devices::inventory::{Device, DeviceKind, Inventory, NoteKind, Source};
use quark::devices::pool::PoolOptions;
use quark::placement::Api;
use serde::Serialize;

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Choice {
    /// CUDA where a CUDA device is, else Vulkan on a GPU, else the CPU
    Auto,
    /// The processor
    Cpu,
    /// A GPU, through Vulkan
    Wgpu,
    /// An NVIDIA GPU, through CUDA
    Cuda,
    /// Mesa's software Vulkan device: the processor plays GPU
    Llvmpipe,
}

impl Choice {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
            Self::Llvmpipe => "llvmpipe",
        }
    }
}

/// The devices that actors may lease, and how.
#[derive(Debug)]
pub(crate) struct Target {
    /// What was chosen; never [`Choice::Auto`].
    pub(crate) choice: Choice,
    /// Whether the user named it, so that nothing else will do.
    pub(crate) required: bool,
    /// The machine with no other devices than these.
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) api: Api,
    pub(crate) options: PoolOptions,
}

impl Target {
    /// Finds the devices for `choice`; leases out at most `vram` of each.
    pub(crate) fn choose(
        mut inventory: Inventory,
        choice: Choice,
        vram: Option<ByteSize>,
    ) -> Result<Self, NoTarget> {
        let required = choice != Choice::Auto;
        let choice = match choice {
            Choice::Auto => [Choice::Cuda, Choice::Wgpu]
                .into_iter()
                .find(|&choice| inventory.devices.iter().any(|device| fits(choice, device)))
                .unwrap_or(Choice::Cpu),
            named => named,
        };
        if choice != Choice::Cpu && !inventory.devices.iter().any(|device| fits(choice, device)) {
            return Err(NoTarget::new(&inventory, choice));
        }
        inventory.devices.retain(|device| fits(choice, device));
        let mut options = PoolOptions::new().software_adapters(choice == Choice::Llvmpipe);
        if let Some(vram) = vram {
            for device in &inventory.devices {
                options = options.capacity(device.id.clone(), vram);
            }
        }
        let api = match choice {
            Choice::Cuda => Api::Cuda,
            Choice::Wgpu | Choice::Llvmpipe => Api::Wgpu,
            Choice::Auto | Choice::Cpu => Api::Any,
        };
        Ok(Self { choice, required, inventory: Arc::new(inventory), api, options })
    }

    /// The products' names, or the processor's.
    pub(crate) fn name(&self) -> String {
        let mut names: Vec<&str> = self.inventory.devices.iter().map(|device| device.name.as_str()).collect();
        if names.is_empty() {
            names.push(self.inventory.cpu.model.as_str());
        }
        let count = names.len();
        names.dedup();
        match names.as_slice() {
            [one] if count > 1 => format!("{count} x {one}"),
            names => names.join(", "),
        }
    }
}

fn fits(choice: Choice, device: &Device) -> bool {
    let gpu = device.kind.is_gpu() && !device.simulated;
    match choice {
        Choice::Auto | Choice::Cpu => false,
        Choice::Cuda => gpu && device.seen_by(Source::Cuda),
        Choice::Wgpu => gpu && device.seen_by(Source::Wgpu),
        Choice::Llvmpipe => device.kind == DeviceKind::SoftwareAdapter && device.seen_by(Source::Wgpu),
    }
}

/// The machine has no device of the kind that was asked for. Nothing was started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTarget {
    #[error("there is no CUDA device{}; run without --device, or with --device cpu", because(.0))]
    Cuda(Option<String>),
    #[error(
        "Vulkan opens no GPU here, only {0}, a processor that plays GPU; ask for that by name with \
         --device llvmpipe, or use --device cpu"
    )]
    OnlySoftware(String),
    #[error("Vulkan opens no GPU here{}; run without --device, or with --device cpu", because(.0))]
    Vulkan(Option<String>),
    #[error(
        "there is no llvmpipe{}; install Mesa's Vulkan drivers (mesa-vulkan-drivers on Debian), or use --device cpu",
        because(.0)
    )]
    Llvmpipe(Option<String>),
}

impl NoTarget {
    fn new(inventory: &Inventory, choice: Choice) -> Self {
        let note = |source: Source| {
            let about = |kind| matches!(kind, NoteKind::Missing | NoteKind::Broken);
            let note = inventory.notes.iter().find(|note| note.source == source && about(note.kind));
            note.map(|note| note.text.clone())
        };
        let software = inventory.devices.iter().find(|device| fits(Choice::Llvmpipe, device));
        match (choice, software) {
            (Choice::Cuda, _) => Self::Cuda(note(Source::Cuda)),
            (Choice::Llvmpipe, _) => Self::Llvmpipe(note(Source::Wgpu)),
            (_, Some(software)) => Self::OnlySoftware(software.name.clone()),
            (_, None) => Self::Vulkan(note(Source::Wgpu)),
        }
    }
}

fn because(note: &Option<String>) -> String {
    note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quark::devices::probe::{ProbeOptions, probe};
    use std::path::Path;

    /// Four L4 cards, as if they were real.
    fn four_cards(sources: &[Source]) -> Inventory {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/topologies/l4x4.toml");
        let mut inventory = probe(&ProbeOptions::default().topology(file)).expect("the shipped topology");
        for device in &mut inventory.devices {
            (device.simulated, device.sources) = (false, sources.to_vec());
        }
        inventory
    }

    fn with_llvmpipe() -> Inventory {
        let mut inventory = four_cards(&[Source::Wgpu]);
        inventory.devices.truncate(1);
        inventory.devices[0].kind = DeviceKind::SoftwareAdapter;
        inventory.devices[0].name = "llvmpipe (LLVM 15)".into();
        inventory
    }

    fn chosen(inventory: Inventory, choice: Choice) -> Choice {
        Target::choose(inventory, choice, None).expect("it is there").choice
    }

    #[test]
    fn auto_takes_cuda_then_a_vulkan_gpu_then_the_processor() {
        assert_eq!(chosen(four_cards(&[Source::Cuda, Source::Wgpu]), Choice::Auto), Choice::Cuda);
        assert_eq!(chosen(four_cards(&[Source::Wgpu]), Choice::Auto), Choice::Wgpu);
        assert_eq!(chosen(four_cards(&[Source::Nvml]), Choice::Auto), Choice::Cpu);
        assert_eq!(chosen(with_llvmpipe(), Choice::Auto), Choice::Cpu);
        assert_eq!(chosen(Inventory::default(), Choice::Auto), Choice::Cpu);
    }

    #[test]
    fn a_named_device_that_is_not_there_is_one_line_that_helps() {
        let refused = |inventory, choice| {
            let text = Target::choose(inventory, choice, None).expect_err("it is not there").to_string();
            assert_eq!(text.lines().count(), 1);
            text
        };
        let text = refused(with_llvmpipe(), Choice::Wgpu);
        assert!(text.contains("only llvmpipe") && text.contains("--device llvmpipe"), "{text}");
        assert!(refused(with_llvmpipe(), Choice::Cuda).contains("no CUDA device"));
        assert!(refused(Inventory::default(), Choice::Wgpu).contains("--device cpu"));
        assert!(refused(Inventory::default(), Choice::Llvmpipe).contains("mesa-vulkan-drivers"));
    }

    #[test]
    fn only_the_chosen_devices_stay_and_the_processor_leases_none() {
        let cards = four_cards(&[Source::Cuda]);
        let target = Target::choose(cards.clone(), Choice::Cuda, None).expect("four cards");
        assert_eq!((target.inventory.devices.len(), target.api), (4, Api::Cuda));
        assert_eq!(target.name(), format!("4 x {}", cards.devices[0].name));
        let target = Target::choose(cards, Choice::Cpu, None).expect("there is always a processor");
        assert!(target.inventory.devices.is_empty() && target.required);
    }
}
