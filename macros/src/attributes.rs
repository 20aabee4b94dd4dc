//! Reading `#[actor(…)]`.

mod backoff;
mod dead_letters;
mod guards;
pub(crate) mod parts;
mod supervise;
mod workers;

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Lit, LitStr, Result, Token};

use self::dead_letters::DeadLetters;
use self::guards::Guards;
use self::supervise::Supervise;
use self::workers::Workers;

/// What `#[actor(…)]` says.
#[derive(Default)]
pub(crate) struct ActorAttributes {
    pub(crate) name: Option<LitStr>,
    pub(crate) idle: Option<Duration>,
    pub(crate) mailbox: Option<u32>,
    pub(crate) activation_limit: Option<Duration>,
    pub(crate) turn_limit: Option<Duration>,
    pub(crate) factory: bool,
    pub(crate) gpu: Option<Gpu>,
    pub(crate) prewarm: Vec<Prewarm>,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) supervise: Option<Supervise>,
    pub(crate) root: Option<Supervise>,
    pub(crate) guards: Guards,
    pub(crate) workers: Option<Workers>,
    pub(crate) reminders: Option<LitStr>,
}

/// `gpu(…)`.
#[derive(Default)]
pub(crate) struct Gpu {
    vram_bytes: u64,
    numa_local: bool,
    numa_node: Option<u32>,
    capability: Option<(u32, u32)>,
    flags: Vec<&'static str>,
}

/// `prewarm(…)`.
pub(crate) struct Prewarm {
    stream: String,
    lead: Duration,
    confidence: f64,
}

const KEYS: &str = "name, idle, mailbox, activation_limit, turn_limit, factory, gpu(…), prewarm(…), dead_letters(…), \
                    supervise(…), root(…), workers(…), reminders, breaker(…), rate_limit(…) or overflow";

impl ActorAttributes {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("actor")) {
            attribute.parse_nested_meta(|meta| found.take(&meta))?;
        }
        found.check(attributes)?;
        Ok(found)
    }

    /// What cannot be said together.
    fn check(&self, attributes: &[Attribute]) -> Result<()> {
        let error =
            |advice: &str| match attributes.iter().find(|attribute| attribute.path().is_ident("actor")) {
                Some(attribute) => Err(Error::new_spanned(attribute, advice)),
                None => Ok(()),
            };
        if self.mailbox.is_some() && self.guards.adapts_mailbox() {
            return error("the mailbox has one size or two bounds; leave `mailbox = …` or `mailbox(…)` out");
        }
        if self.workers.is_some() && (self.gpu.is_some() || !self.prewarm.is_empty()) {
            return error(
                "a stateless worker is one of several behind its key, so nothing can be loaded for the key ahead; \
                 leave `workers(…)` out, or `gpu(…)` and `prewarm(…)`",
            );
        }
        if self.workers.is_some() && (self.supervise.is_some() || self.root.is_some()) {
            return error(
                "a stateless worker is one of several behind its key, so it is nobody's parent or child, and has no \
                 restarts of its own; leave `workers(…)` out, or `supervise(…)` and `root(…)`",
            );
        }
        Ok(())
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match key.as_str() {
            "name" => {
                let name: LitStr = meta.value()?.parse()?;
                check_name(&name)?;
                once(meta, &mut self.name, name)
            }
            "idle" => once(meta, &mut self.idle, duration(meta)?),
            "activation_limit" => once(meta, &mut self.activation_limit, duration(meta)?),
            "turn_limit" => once(meta, &mut self.turn_limit, duration(meta)?),
            "workers" => once(meta, &mut self.workers, Workers::read(meta)?),
            "reminders" => {
                let store: LitStr = meta.value()?.parse()?;
                check_name(&store)?;
                once(meta, &mut self.reminders, store)
            }
            "breaker" | "rate_limit" | "overflow" => self.guards.take(&key, meta),
            "mailbox" if !meta.input.peek(Token![=]) => self.guards.take(&key, meta),
            "mailbox" => {
                let size: syn::LitInt = meta.value()?.parse()?;
                let size = size.base10_parse().ok().filter(|&size: &u32| size > 0);
                let size = size
                    .ok_or_else(|| meta.error("the mailbox holds at least one message: `mailbox = 1000`"))?;
                once(meta, &mut self.mailbox, size)
            }
            "factory" => {
                self.factory = true;
                Ok(())
            }
            "gpu" => once(meta, &mut self.gpu, Gpu::read(meta)?),
            "prewarm" => {
                self.prewarm.push(Prewarm::read(meta)?);
                Ok(())
            }
            "dead_letters" => once(meta, &mut self.dead_letters, DeadLetters::read(meta)?),
            "supervise" => once(meta, &mut self.supervise, Supervise::read(meta)?),
            "root" => once(meta, &mut self.root, Supervise::read_root(meta)?),
            "local" => Err(meta.error("actors are local to their silo by now; leave `local` out")),
            _ => Err(meta.error(format!("unknown setting; #[actor(…)] takes {KEYS}"))),
        }
    }
}

impl Gpu {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut gpu = Self::default();
        let mut vram = None;
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "vram" => {
                    let text: LitStr = meta.value()?.parse()?;
                    let bytes = parse_bytes(&text.value()).filter(|&bytes| bytes > 0).ok_or_else(|| {
                        Error::new(text.span(), "an amount of memory looks like \"2 GiB\" or \"512 MiB\"")
                    })?;
                    once(&meta, &mut vram, bytes)
                }
                "numa" => {
                    let text: LitStr = meta.value()?.parse()?;
                    match text.value().as_str() {
                        "local" => gpu.numa_local = true,
                        "any" => gpu.numa_local = false,
                        node => {
                            let node = node.parse().map_err(|_| {
                                Error::new(
                                    text.span(),
                                    "write `numa = \"local\"`, `\"any\"` or a node's number",
                                )
                            })?;
                            gpu.numa_node = Some(node);
                        }
                    }
                    Ok(())
                }
                "capability" => {
                    let text: LitStr = meta.value()?.parse()?;
                    let value = text.value();
                    let parts = value
                        .split_once('.')
                        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
                    gpu.capability = Some(parts.ok_or_else(|| {
                        Error::new(text.span(), "a CUDA compute capability looks like \"8.0\"")
                    })?);
                    Ok(())
                }
                "optional" => flag(&mut gpu, "optional"),
                "f16" => flag(&mut gpu, "f16"),
                "bf16" => flag(&mut gpu, "bf16"),
                "software" => flag(&mut gpu, "software"),
                _ => Err(meta.error(
                    "unknown setting; gpu(…) takes vram, numa, capability, f16, bf16, software or optional",
                )),
            }
        })?;
        let missing = "gpu(…) needs the memory to lease, such as gpu(vram = \"2 GiB\")";
        gpu.vram_bytes = vram.ok_or_else(|| Error::new(meta.path.span(), missing))?;
        Ok(gpu)
    }

    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let vram_bytes = self.vram_bytes;
        let mut need = quote!(#quark::GpuNeed::new(#vram_bytes));
        if self.numa_local {
            need.extend(quote!(.numa(#quark::NumaPreference::Local)));
        }
        if let Some(node) = self.numa_node {
            need.extend(quote!(.numa(#quark::NumaPreference::Node(#node))));
        }
        if let Some((major, minor)) = self.capability {
            need.extend(quote!(.capability(#major, #minor)));
        }
        for flag in &self.flags {
            let flag = syn::Ident::new(flag, Span::call_site());
            need.extend(quote!(.#flag()));
        }
        need
    }
}

fn flag(gpu: &mut Gpu, flag: &'static str) -> Result<()> {
    if !gpu.flags.contains(&flag) {
        gpu.flags.push(flag);
    }
    Ok(())
}

impl Prewarm {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut stream, mut lead, mut confidence) = (None, None, None);
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "stream" => {
                    let text: LitStr = meta.value()?.parse()?;
                    check_namespace(&text)?;
                    once(&meta, &mut stream, text.value())
                }
                "lead" => {
                    let lead_time = duration(&meta)?;
                    once(&meta, &mut lead, lead_time)
                }
                "confidence" => {
                    let literal: Lit = meta.value()?.parse()?;
                    let value = match &literal {
                        Lit::Float(value) => value.base10_parse().ok(),
                        Lit::Int(value) => value.base10_parse().ok(),
                        _ => None,
                    };
                    let value = value.filter(|value: &f64| (0.0..=1.0).contains(value) && *value > 0.0);
                    let value = value.ok_or_else(|| {
                        Error::new(
                            literal.span(),
                            "the confidence is a share above 0 and up to 1, such as 0.8",
                        )
                    })?;
                    once(&meta, &mut confidence, value)
                }
                _ => Err(meta.error("unknown setting; prewarm(…) takes stream, lead and confidence")),
            }
        })?;
        let missing = |what: &str| {
            let example = "prewarm(stream = \"sensors/motion\", lead = \"200ms\", confidence = 0.8)";
            Error::new(meta.path.span(), format!("prewarm(…) needs {what}: {example}"))
        };
        Ok(Self {
            stream: stream.ok_or_else(|| missing("the stream to watch"))?,
            lead: lead.ok_or_else(|| missing("how long before the first message the event comes"))?,
            confidence: confidence.ok_or_else(|| missing("the share of events that must come true"))?,
        })
    }

    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let (stream, confidence, lead) = (&self.stream, self.confidence, duration_tokens(self.lead));
        quote!(#quark::PrewarmSpec { stream: #stream, lead: #lead, confidence: #confidence })
    }
}

/// A constant expression for `duration`.
pub(crate) fn duration_tokens(duration: Duration) -> TokenStream {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanos))
}

/// A namespace that a stream can have.
fn check_namespace(text: &LitStr) -> Result<()> {
    let value = text.value();
    if value.is_empty() || value.starts_with('/') || value.ends_with('/') {
        return Err(Error::new(text.span(), "a stream namespace looks like \"cameras/frames\""));
    }
    Ok(())
}

fn check_name(name: &LitStr) -> Result<()> {
    let value = name.value();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() || !value.chars().all(allowed) {
        let advice =
            "a wire name is letters, digits, dots, dashes and underscores, such as \"vision.analyzer\"";
        return Err(Error::new(name.span(), advice));
    }
    Ok(())
}

pub(crate) fn once<T>(meta: &ParseNestedMeta<'_>, place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("this is set twice; leave one of them out")),
    }
}

fn duration(meta: &ParseNestedMeta<'_>) -> Result<Duration> {
    let text: LitStr = meta.value()?.parse()?;
    let parsed = parse_duration(&text.value()).filter(|duration| !duration.is_zero());
    parsed.ok_or_else(|| Error::new(text.span(), "a time looks like \"200ms\", \"30s\", \"10m\" or \"1h\""))
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (text[..split].parse::<f64>().ok()?, text[split..].trim());
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (text[..split].parse::<f64>().ok()?, text[split..].trim());
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(parse_duration("1.5 h"), Some(Duration::from_secs(5_400)));
        for wrong in ["", "10", "ten s", "-1s", "10 weeks"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("2 GiB"), Some(2 << 30));
        assert_eq!(parse_bytes("1.5GB"), Some(1_500_000_000));
        for wrong in ["", "2", "GiB", "-2 GiB", "2 gigs"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
