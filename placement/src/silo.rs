//! Which silo of a grid an actor goes to.
//!
//! Candidates are the silos of the membership view. Filters refuse those that drain, don't host the actor's type in
//! a compatible version, lack a label, or lack hardware; a [`Director`] scores the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quark_base::{ByteSize, SiloId};
use quark_devices::inventory::{Device, Inventory, IsaFeature};
use quark_devices::ledger::DeviceUsage;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceHint, NoDevice, explain_device, refusals};
use crate::explain::Explanation;
use crate::hash::hash_salted;
use crate::requirement::{CpuNeed, GpuNeed};
use crate::ring::Ring;

/// What a silo tells the others about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiloInfo {
    /// Its incarnation.
    pub id: SiloId,
    /// What its operator calls it.
    pub name: String,
    /// Its hardware, as far as placement asks about it.
    pub hardware: SiloHardware,
    /// Region, zone, rack and whatever else its operator says.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes no new actors.
    pub draining: bool,
    /// The actor types it hosts, by wire name, each with the fingerprint of its interface.
    pub types: BTreeMap<String, u64>,
    /// How busy it is: 0 idle, 1 full. From its last pressure sample.
    pub load: f32,
}

/// The part of an [`Inventory`] that travels with membership.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiloHardware {
    /// Its devices.
    pub devices: Vec<Device>,
    /// Their ledger, without the leases.
    pub usage: Vec<DeviceUsage>,
    /// Instruction-set features that all its CPUs have.
    pub cpu_features: BTreeSet<IsaFeature>,
    /// CPUs it may use.
    pub cpus: u32,
    /// Main memory it may use.
    pub memory: ByteSize,
}

impl SiloHardware {
    /// The summary of a machine and its ledger.
    pub fn of(inventory: &Inventory, usage: &[DeviceUsage]) -> Self {
        let without_leases = |books: &DeviceUsage| DeviceUsage { leases: Vec::new(), ..books.clone() };
        Self {
            devices: inventory.devices.clone(),
            usage: usage.iter().map(without_leases).collect(),
            cpu_features: inventory.cpu.features.clone(),
            cpus: inventory.cpu.usable(),
            memory: inventory.memory.usable(),
        }
    }
}

/// What an actor asks of its silo. The default asks nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiloNeed {
    /// The actor type's wire name and the fingerprint of its interface.
    pub actor_type: Option<(String, u64)>,
    /// A device.
    pub gpu: Option<GpuNeed>,
    /// Processors and memory.
    pub cpu: CpuNeed,
    /// Labels that must have these values.
    pub labels: BTreeMap<String, String>,
    /// Whether simulated devices count, for planning.
    pub allow_simulated: bool,
}

impl fmt::Display for SiloNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.actor_type.iter().map(|(name, _)| name.clone()).collect();
        parts.extend(self.gpu.map(|gpu| gpu.to_string()));
        parts.extend(self.cpu.features.iter().map(|feature| format!("{feature:?}")));
        if self.cpu.min_cpus > 0 {
            parts.push(format!("{} CPUs", self.cpu.min_cpus));
        }
        if !self.cpu.min_memory.is_zero() {
            parts.push(format!("{} of memory", self.cpu.min_memory));
        }
        parts.extend(self.labels.iter().map(|(name, value)| format!("{name} = {value}")));
        if parts.is_empty() { f.write_str("any silo") } else { f.write_str(&parts.join(", ")) }
    }
}

/// What one silo lacked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SiloLack {
    /// It takes no new actors.
    Draining,
    /// It doesn't host the type.
    Type {
        /// The type's wire name.
        name: String,
    },
    /// It hosts the type with another interface.
    Version {
        /// The type's wire name.
        name: String,
    },
    /// A label is missing or has another value.
    Label {
        /// The label.
        name: String,
        /// The value it has.
        has: Option<String>,
        /// The value it needs.
        needs: String,
    },
    /// Its CPUs don't all have a feature.
    CpuFeature(IsaFeature),
    /// It may use too few CPUs.
    Cpus {
        /// What it may use.
        has: u32,
        /// What is needed.
        needs: u32,
    },
    /// It may use too little memory.
    Memory {
        /// What it may use.
        has: ByteSize,
        /// What is needed.
        needs: ByteSize,
    },
    /// None of its devices fits.
    Device(NoDevice),
}

impl fmt::Display for SiloLack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => f.write_str("is draining"),
            Self::Type { name } => write!(f, "does not host {name}"),
            Self::Version { name } => write!(f, "hosts an incompatible version of {name}"),
            Self::Label { name, has: Some(has), .. } => write!(f, "has {name} = {has}"),
            Self::Label { name, has: None, .. } => write!(f, "has no label {name}"),
            Self::CpuFeature(feature) => write!(f, "lacks {feature:?} on some CPU"),
            Self::Cpus { has, .. } => write!(f, "may use {has} CPUs"),
            Self::Memory { has, .. } => write!(f, "may use {has} of memory"),
            Self::Device(none) => write!(f, "{none}"),
        }
    }
}

/// How the silos that fit are ordered.
#[derive(Clone, Copy, Debug)]
pub enum Director<'a> {
    /// The ring's order for the key: every silo with the same membership view chooses the same.
    Hash(&'a Ring),
    /// By chance, from a seed; the same seed and key give the same silo.
    Random {
        /// The seed.
        seed: u64,
    },
    /// The lowest load first; of equal loads, spread by key.
    LeastLoaded,
}

impl fmt::Display for Director<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash(_) => "hash",
            Self::Random { .. } => "chance",
            Self::LeastLoaded => "load",
        })
    }
}

impl Director<'_> {
    /// Scores for the key, one per silo of `silos`; higher is better.
    fn scores(&self, key: &[u8], silos: &[SiloInfo]) -> Vec<f64> {
        match self {
            Self::Hash(ring) => {
                let order = ring.preference(key, ring.silos().len());
                let ranks: BTreeMap<SiloId, usize> = order.into_iter().zip(1..).collect();
                // Silos that the ring doesn't know yet come after all that it knows.
                silos.iter().map(|silo| ranks.get(&silo.id).map_or(0.0, |rank| 1.0 / *rank as f64)).collect()
            }
            Self::Random { seed } => {
                silos.iter().map(|silo| unit(hash_salted(key, seed ^ silo.id.0.rotate_left(32)))).collect()
            }
            Self::LeastLoaded => silos
                .iter()
                // A load that is no number is a broken sample: the silo counts as full.
                .map(|silo| 1.0 - f64::from(if silo.load.is_nan() { 1.0 } else { silo.load.clamp(0.0, 1.0) }))
                .zip(silos)
                .map(|(free, silo)| free + unit(hash_salted(key, silo.id.0)) * TIE_BREAK)
                .collect(),
        }
    }
}

/// What chance may add to a load: far below the resolution of a pressure sample (1 %).
const TIE_BREAK: f64 = 1e-6;

/// A hash as a number from 0 to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A silo that fits, and why it was this one.
#[derive(Clone, Debug, PartialEq)]
pub struct SiloChoice {
    /// The silo.
    pub silo: SiloId,
    /// Every candidate's verdict.
    pub explanation: Explanation<SiloId, SiloLack>,
}

/// No silo fits. Nothing was placed; when the silos change, a retry may help.
#[derive(Clone, Debug, PartialEq)]
pub struct NoSilo {
    /// Every candidate's verdict: all refused.
    pub explanation: Explanation<SiloId, SiloLack>,
}

impl std::error::Error for NoSilo {}

impl fmt::Display for NoSilo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.explanation.candidates.len();
        write!(f, "none of {count} silos fits {}", self.explanation.asked)?;
        let mut separator = ": ";
        for candidate in self.explanation.candidates.iter().take(crate::device::MAX_REFUSALS_TOLD) {
            if let crate::Verdict::Refused(lack) = &candidate.verdict {
                write!(f, "{separator}{} {lack}", candidate.name)?;
                separator = "; ";
            }
        }
        match count.saturating_sub(crate::device::MAX_REFUSALS_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Chooses one of `silos` for the actor of `key`.
///
/// # Errors
/// [`NoSilo`] when the filters leave none.
pub fn choose_silo(
    silos: &[SiloInfo],
    need: &SiloNeed,
    director: Director<'_>,
    key: &[u8],
) -> Result<SiloChoice, NoSilo> {
    let scores = director.scores(key, silos);
    let filtered = silos
        .iter()
        .zip(scores)
        .map(|(silo, score)| (silo.id, silo.name.clone(), filter(silo, need).map(|()| score)));
    let (explanation, chosen) =
        Explanation::direct(need.to_string(), director.to_string(), filtered.collect());
    match chosen {
        Some(at) => Ok(SiloChoice { silo: silos[at].id, explanation }),
        None => Err(NoSilo { explanation }),
    }
}

fn filter(silo: &SiloInfo, need: &SiloNeed) -> Result<(), SiloLack> {
    if silo.draining {
        return Err(SiloLack::Draining);
    }
    if let Some((name, fingerprint)) = &need.actor_type {
        match silo.types.get(name) {
            None => return Err(SiloLack::Type { name: name.clone() }),
            Some(hosted) if hosted != fingerprint => return Err(SiloLack::Version { name: name.clone() }),
            Some(_) => {}
        }
    }
    for (name, needs) in &need.labels {
        let has = silo.labels.get(name);
        if has != Some(needs) {
            return Err(SiloLack::Label { name: name.clone(), has: has.cloned(), needs: needs.clone() });
        }
    }
    let hardware = &silo.hardware;
    if let Some(missing) = need.cpu.features.iter().find(|feature| !hardware.cpu_features.contains(feature)) {
        return Err(SiloLack::CpuFeature(*missing));
    }
    if hardware.cpus < need.cpu.min_cpus {
        return Err(SiloLack::Cpus { has: hardware.cpus, needs: need.cpu.min_cpus });
    }
    if hardware.memory < need.cpu.min_memory {
        return Err(SiloLack::Memory { has: hardware.memory, needs: need.cpu.min_memory });
    }
    // An optional device is no reason to refuse a silo.
    if let Some(gpu) = need.gpu.filter(|gpu| !gpu.optional) {
        let hint = DeviceHint { allow_simulated: need.allow_simulated, ..DeviceHint::default() };
        let devices = explain_device(&hardware.devices, hardware.memory, &hardware.usage, &gpu, &hint);
        if devices.chosen().is_none() {
            return Err(SiloLack::Device(NoDevice { need: gpu, lacked: refusals(devices) }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn silo(id: u64) -> SiloInfo {
        SiloInfo {
            id: SiloId(id),
            name: format!("silo {id}"),
            hardware: SiloHardware { cpus: 4, memory: ByteSize::gib(8), ..SiloHardware::default() },
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            draining: false,
            types: BTreeMap::from([("vision".to_owned(), 7)]),
            load: 0.5,
        }
    }

    fn refusal(silo: SiloInfo, need: &SiloNeed) -> SiloLack {
        let error = choose_silo(&[silo], need, Director::LeastLoaded, b"k").unwrap_err();
        match error.explanation.candidates.into_iter().next().unwrap().verdict {
            crate::Verdict::Refused(lack) => lack,
            verdict => panic!("not refused: {verdict:?}"),
        }
    }

    #[test]
    fn each_filter_refuses_with_its_own_lack() {
        let any = SiloNeed::default;
        assert_eq!(refusal(SiloInfo { draining: true, ..silo(1) }, &any()), SiloLack::Draining);
        let typed = |name: &str| SiloNeed { actor_type: Some((name.into(), 8)), ..any() };
        assert_eq!(refusal(silo(1), &typed("audio")), SiloLack::Type { name: "audio".into() });
        assert_eq!(refusal(silo(1), &typed("vision")), SiloLack::Version { name: "vision".into() });
        let zone = SiloNeed { labels: BTreeMap::from([("zone".into(), "b".into())]), ..any() };
        assert!(matches!(refusal(silo(1), &zone), SiloLack::Label { has: Some(has), .. } if has == "a"));
        let cpus = SiloNeed { cpu: CpuNeed { min_cpus: 8, ..CpuNeed::ANY }, ..any() };
        assert_eq!(refusal(silo(1), &cpus), SiloLack::Cpus { has: 4, needs: 8 });
        let memory = SiloNeed { cpu: CpuNeed { min_memory: ByteSize::gib(9), ..CpuNeed::ANY }, ..any() };
        assert!(matches!(refusal(silo(1), &memory), SiloLack::Memory { .. }));
        let gpu = SiloNeed { gpu: Some(GpuNeed::new(1)), ..any() };
        assert!(matches!(refusal(silo(1), &gpu), SiloLack::Device(_)));
        let optional = SiloNeed { gpu: Some(GpuNeed::new(1).optional()), ..any() };
        assert!(choose_silo(&[silo(1)], &optional, Director::LeastLoaded, b"k").is_ok());
    }

    #[test]
    fn the_refusal_is_one_line() {
        let silos = [SiloInfo { draining: true, ..silo(1) }, silo(2)];
        let need = SiloNeed { gpu: Some(GpuNeed::new(2 << 30)), ..SiloNeed::default() };
        let error = choose_silo(&silos, &need, Director::LeastLoaded, b"k").unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("none of 2 silos fits gpu(vram = 2 GiB): silo 1 is draining; silo 2 no device")
        );
        assert_eq!(text.lines().count(), 1);
        let nobody = choose_silo(&[], &need, Director::LeastLoaded, b"k").unwrap_err();
        assert_eq!(nobody.to_string(), "none of 0 silos fits gpu(vram = 2 GiB)");
    }

    #[test]
    fn the_hash_director_agrees_with_the_ring_until_a_filter_speaks() {
        let mut silos: Vec<SiloInfo> = (1..=5).map(silo).collect();
        let ring = Ring::new(silos.iter().map(|silo| silo.id)).unwrap();
        let choose = |silos: &[SiloInfo], key: &[u8]| {
            choose_silo(silos, &SiloNeed::default(), Director::Hash(&ring), key).unwrap().silo
        };
        let keys: Vec<String> = (0..100).map(|i| format!("cam-{i}")).collect();
        for key in &keys {
            assert_eq!(Some(choose(&silos, key.as_bytes())), ring.lookup(key.as_bytes()));
        }
        silos[2].draining = true;
        for key in &keys {
            let order = ring.preference(key.as_bytes(), 2);
            let expected = if order[0] == SiloId(3) { order[1] } else { order[0] };
            assert_eq!(choose(&silos, key.as_bytes()), expected);
        }
    }

    #[test]
    fn the_least_loaded_wins_and_equals_share() {
        let mut silos: Vec<SiloInfo> = (1..=4).map(silo).collect();
        let need = SiloNeed::default();
        let mut used = BTreeSet::new();
        for i in 0..200 {
            used.insert(
                choose_silo(&silos, &need, Director::LeastLoaded, format!("{i}").as_bytes()).unwrap().silo,
            );
        }
        assert_eq!(used.len(), 4);
        silos[1].load = 0.49;
        silos[3].load = f32::NAN;
        for i in 0..200 {
            let choice =
                choose_silo(&silos, &need, Director::LeastLoaded, format!("{i}").as_bytes()).unwrap();
            assert_eq!(choice.silo, SiloId(2));
        }
    }

    proptest! {
        #[test]
        fn chance_is_fair_and_repeatable(seed in any::<u64>()) {
            let silos: Vec<SiloInfo> = (1..=4).map(silo).collect();
            let director = Director::Random { seed };
            let mut counts = BTreeMap::new();
            for i in 0..400 {
                let key = format!("{i}");
                let choice = choose_silo(&silos, &SiloNeed::default(), director, key.as_bytes()).unwrap();
                let again = choose_silo(&silos, &SiloNeed::default(), director, key.as_bytes()).unwrap();
                prop_assert_eq!(choice.silo, again.silo);
                *counts.entry(choice.silo).or_insert(0) += 1;
            }
            // Seven standard deviations of a binomial(400, 1/4): 7 * 8.7 = 61.
            for count in counts.values() {
                prop_assert!((39..=161).contains(count), "{:?}", counts);
            }
        }
    }
}
