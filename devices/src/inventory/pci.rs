//! A PCI address in one spelling, so that libraries that write it differently can be compared.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Domain, bus, device and function of a PCI device. Shown as "0000:3b:00.0"; parsed from that, from NVML's
/// eight-digit domain ("00000000:3B:00.0") and without a domain ("3b:00.0").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    /// PCI segment group; 0 on most machines, up to 32 bits behind VMD and on Azure.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device (slot) number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// The text is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address; write it like \"0000:3b:00.0\"")]
pub struct PciAddressError(pub String);

impl PciAddress {
    /// The address of these parts. CUDA gives domain, bus and device; its function is always 0.
    pub const fn new(domain: u32, bus: u8, device: u8, function: u8) -> Self {
        Self { domain, bus, device, function }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).ok_or_else(|| PciAddressError(text.chars().take(40).collect()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (front, function) = match text.rsplit_once('.') {
        Some((front, function)) => (front, hex(function, 7)?),
        None => (text, 0),
    };
    let mut parts = front.rsplit(':');
    let device = hex(parts.next()?, 31)?;
    let bus = hex(parts.next()?, 255)?;
    let domain = parts.next().map_or(Some(0), |part| hex(part, u32::MAX))?;
    if parts.next().is_some() {
        return None;
    }
    Some(PciAddress::new(
        domain,
        u8::try_from(bus).ok()?,
        u8::try_from(device).ok()?,
        u8::try_from(function).ok()?,
    ))
}

fn hex(text: &str, max: u32) -> Option<u32> {
    // from_str_radix takes a leading "+", which is no address.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok().filter(|value| *value <= max)
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_normalised() {
        for text in ["0000:3b:00.0", "00000000:3B:00.0", "3b:00.0", "0000:3b:00", " 0:3b:0.0\n"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), "0000:3b:00.0", "{text}");
        }
        assert_eq!("10000:e1:00.1".parse::<PciAddress>().unwrap().to_string(), "10000:e1:00.1");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", ":", "x", "3b", "0000:3b:20.0", "0000:3b:00.8", "1:2:3:4.0", "+1:00.0", "100:00.0", "é:00.0"]
        {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
