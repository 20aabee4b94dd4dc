//! Reading the guards: `breaker(…)`, `rate_limit(…)`, `mailbox(…)` and `overflow = …`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Error, Ident, LitInt, LitStr, Result};

use super::{duration, duration_tokens, once};

/// The guards that a type declares.
#[derive(Default)]
pub(crate) struct Guards {
    breaker: Option<Breaker>,
    rate_limit: Option<RateLimit>,
    mailbox: Option<Mailbox>,
    overflow: Option<Ident>,
}

struct Breaker {
    failures: u32,
    within: Option<Duration>,
    open: Option<Duration>,
    probes: Option<u32>,
    errors: bool,
}

struct RateLimit {
    calls: u32,
    per: Ident,
    burst: Option<u32>,
    when_full: Option<Ident>,
    by_key: bool,
}

struct Mailbox {
    min: u32,
    max: u32,
    target: Option<Duration>,
}

const OVERFLOWS: [(&str, &str); 4] =
    [("reject", "Reject"), ("drop_oldest", "DropOldest"), ("drop_newest", "DropNewest"), ("wait", "Wait")];
const WHEN_LIMITED: [(&str, &str); 3] = [("reject", "Reject"), ("queue", "Queue"), ("drop", "Drop")];
const BY: [(&str, &str); 2] = [("type", "Type"), ("key", "Key")];

/// The most failures that the runtime remembers: `quark_runtime::guards::FAILURES_MAX`.
const FAILURES_MAX: u32 = 1_000;

impl Guards {
    pub(super) fn take(&mut self, key: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match key {
            "breaker" => once(meta, &mut self.breaker, Breaker::read(meta)?),
            "rate_limit" => once(meta, &mut self.rate_limit, RateLimit::read(meta)?),
            "mailbox" => once(meta, &mut self.mailbox, Mailbox::read(meta)?),
            _ => once(meta, &mut self.overflow, one_of(meta, &OVERFLOWS)?),
        }
    }

    pub(crate) fn adapts_mailbox(&self) -> bool {
        self.mailbox.is_some()
    }

    /// None where the type declares none.
    pub(crate) fn tokens(&self, quark: &TokenStream) -> Option<TokenStream> {
        let mut tokens = TokenStream::new();
        if let Some(breaker) = &self.breaker {
            let breaker = breaker.tokens(quark);
            tokens.extend(quote!(.breaker(#breaker)));
        }
        if let Some(limit) = &self.rate_limit {
            let limit = limit.tokens(quark);
            tokens.extend(quote!(.rate_limit(#limit)));
        }
        if let Some(mailbox) = &self.mailbox {
            let mailbox = mailbox.tokens(quark);
            tokens.extend(quote!(.mailbox(#mailbox)));
        }
        if let Some(overflow) = &self.overflow {
            tokens.extend(quote!(.overflow(#quark::Overflow::#overflow)));
        }
        (!tokens.is_empty()).then(|| quote!(#quark::Guards::none() #tokens))
    }
}

impl Breaker {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut failures, mut within, mut open, mut probes, mut errors) = (None, None, None, None, false);
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "failures" => {
                    let count = count(&meta)?;
                    if count > FAILURES_MAX {
                        return Err(
                            meta.error(format!("a breaker remembers at most {FAILURES_MAX} failures"))
                        );
                    }
                    once(&meta, &mut failures, count)
                }
                "within" => once(&meta, &mut within, duration(&meta)?),
                "open" => once(&meta, &mut open, duration(&meta)?),
                "probes" => once(&meta, &mut probes, count(&meta)?),
                "errors" => {
                    errors = true;
                    Ok(())
                }
                _ => {
                    Err(meta
                        .error("unknown setting; breaker(…) takes failures, within, open, probes and errors"))
                }
            }
        })?;
        let missing = "breaker(…) needs the number of failures that opens it, such as \
                       breaker(failures = 5, within = \"10s\", open = \"30s\")";
        let failures = failures.ok_or_else(|| Error::new(meta.path.span(), missing))?;
        Ok(Self { failures, within, open, probes, errors })
    }

    fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let failures = self.failures;
        let mut tokens = quote!(#quark::Breaker::after(#failures));
        if let Some(within) = self.within.map(duration_tokens) {
            tokens.extend(quote!(.within(#within)));
        }
        if let Some(open) = self.open.map(duration_tokens) {
            tokens.extend(quote!(.open(#open)));
        }
        if let Some(probes) = self.probes {
            tokens.extend(quote!(.probes(#probes)));
        }
        if self.errors {
            tokens.extend(quote!(.errors()));
        }
        tokens
    }
}

impl RateLimit {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut rate, mut burst, mut when_full, mut by) = (None, None, None, None);
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "per_second" | "per_minute" => {
                    let per = Ident::new(&key, Span::call_site());
                    once(&meta, &mut rate, (count(&meta)?, per))
                }
                "burst" => once(&meta, &mut burst, count(&meta)?),
                "when_full" => once(&meta, &mut when_full, one_of(&meta, &WHEN_LIMITED)?),
                "by" => once(&meta, &mut by, one_of(&meta, &BY)?),
                _ => Err(meta.error(
                    "unknown setting; rate_limit(…) takes per_second or per_minute, burst, when_full and by",
                )),
            }
        })?;
        let missing = "rate_limit(…) needs the rate, such as rate_limit(per_second = 100, burst = 20)";
        let (calls, per) = rate.ok_or_else(|| Error::new(meta.path.span(), missing))?;
        Ok(Self { calls, per, burst, when_full, by_key: by.is_some_and(|by| by == "Key") })
    }

    fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let (calls, per) = (self.calls, &self.per);
        let mut tokens = quote!(#quark::RateLimit::#per(#calls));
        if let Some(burst) = self.burst {
            tokens.extend(quote!(.burst(#burst)));
        }
        if let Some(when_full) = &self.when_full {
            tokens.extend(quote!(.when_full(#quark::WhenLimited::#when_full)));
        }
        if self.by_key {
            tokens.extend(quote!(.by_key()));
        }
        tokens
    }
}

impl Mailbox {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut min, mut max, mut target) = (None, None, None);
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "min" => once(&meta, &mut min, count(&meta)?),
                "max" => once(&meta, &mut max, count(&meta)?),
                "target" => once(&meta, &mut target, duration(&meta)?),
                _ => Err(meta.error("unknown setting; mailbox(…) takes min, max and target")),
            }
        })?;
        let example = "mailbox(min = 100, max = 10_000, target = \"50ms\")";
        match (min, max) {
            (Some(min), Some(max)) if min <= max => Ok(Self { min, max, target }),
            (Some(_), Some(_)) => {
                let advice = format!("the lower bound is above the upper one; write {example}");
                Err(Error::new(meta.path.span(), advice))
            }
            _ => {
                let advice = format!("mailbox(…) needs both bounds: {example}; or write `mailbox = 1000`");
                Err(Error::new(meta.path.span(), advice))
            }
        }
    }

    fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let (min, max) = (self.min, self.max);
        let target = self.target.map(duration_tokens).map(|target| quote!(.target(#target)));
        quote!(#quark::AdaptiveMailbox::between(#min, #max) #target)
    }
}

/// A whole number from one up.
fn count(meta: &ParseNestedMeta<'_>) -> Result<u32> {
    let literal: LitInt = meta.value()?.parse()?;
    let count = literal.base10_parse().ok().filter(|&count: &u32| count > 0);
    count.ok_or_else(|| Error::new(literal.span(), "a whole number from 1 up"))
}

/// One of some words, as the variant it stands for.
fn one_of(meta: &ParseNestedMeta<'_>, words: &[(&str, &str)]) -> Result<Ident> {
    let text: LitStr = meta.value()?.parse()?;
    let value = text.value();
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, variant)| Ident::new(variant, Span::call_site())).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        Error::new(text.span(), format!("write one of {}", known.join(", ")))
    })
}
