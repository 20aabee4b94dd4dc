//! `supervise(…)`, how a type supervises its children, and `root(…)`, how the silo supervises it without a parent.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Error, Ident, LitInt, LitStr, Result};

use super::backoff::Backoff;
use super::{duration, duration_tokens, once};

/// What the directives, strategies and lots of orphans are called here and in Rust.
const DIRECTIVES: [(&str, &str); 4] =
    [("resume", "Resume"), ("restart", "Restart"), ("stop", "Stop"), ("escalate", "Escalate")];
const STRATEGIES: [(&str, &str); 3] =
    [("one_for_one", "OneForOne"), ("all_for_one", "AllForOne"), ("rest_for_one", "RestForOne")];
const ORPHANS: [(&str, &str); 2] = [("stop", "Stop"), ("keep", "Keep")];

#[derive(Default)]
pub(crate) struct Supervise {
    strategy: Option<Ident>,
    on_panic: Option<Ident>,
    on_activation: Option<Ident>,
    max_restarts: Option<u32>,
    within: Option<Duration>,
    backoff: Option<Backoff>,
    orphans: Option<Ident>,
}

impl Supervise {
    /// Reads `supervise(…)`.
    pub(super) fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut found = Self::default();
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "strategy" => once(&meta, &mut found.strategy, choice(&meta, &STRATEGIES)?),
                "orphans" => once(&meta, &mut found.orphans, choice(&meta, &ORPHANS)?),
                key => found.take(key, &meta)?.unwrap_or_else(|| {
                    Err(meta.error(
                        "unknown setting; supervise(…) takes strategy, on_panic, on_activation, max_restarts, \
                         within, backoff or orphans",
                    ))
                }),
            }
        })?;
        Ok(found)
    }

    /// Reads `root(…)`.
    pub(super) fn read_root(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut found = Self::default();
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            found.take(&key, &meta)?.unwrap_or_else(|| {
                Err(meta.error(
                    "unknown setting; root(…) takes on_panic, on_activation, max_restarts, within or backoff: it \
                     says how the silo supervises the actor itself; its children are for supervise(…)",
                ))
            })
        })?;
        Ok(found)
    }

    /// What both take. `None` if `key` is none of it.
    fn take(&mut self, key: &str, meta: &ParseNestedMeta<'_>) -> Result<Option<Result<()>>> {
        Ok(Some(match key {
            "on_panic" => once(meta, &mut self.on_panic, choice(meta, &DIRECTIVES)?),
            "on_activation" => {
                let directive = choice(meta, &DIRECTIVES)?;
                if directive == "Resume" {
                    let advice = "an actor that could not be activated has nothing to resume with; write \
                                  \"restart\", \"stop\" or \"escalate\"";
                    return Err(Error::new(directive.span(), advice));
                }
                once(meta, &mut self.on_activation, directive)
            }
            "max_restarts" => {
                let limit: LitInt = meta.value()?.parse()?;
                let advice = "say how many restarts are one trouble: `max_restarts = 3`";
                once(meta, &mut self.max_restarts, limit.base10_parse().map_err(|_| meta.error(advice))?)
            }
            "within" => once(meta, &mut self.within, duration(meta)?),
            "backoff" => once(meta, &mut self.backoff, Backoff::read(meta)?),
            _ => return Ok(None),
        }))
    }

    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let mut fields = TokenStream::new();
        if let Some(strategy) = &self.strategy {
            fields.extend(quote!(strategy: #quark::Strategy::#strategy,));
        }
        if let Some(directive) = &self.on_panic {
            fields.extend(quote!(on_panic: #quark::Directive::#directive,));
        }
        if let Some(directive) = &self.on_activation {
            fields.extend(quote!(on_activation: #quark::Directive::#directive,));
        }
        if let Some(limit) = self.max_restarts {
            fields.extend(quote!(max_restarts: #limit,));
        }
        if let Some(within) = self.within {
            let within = duration_tokens(within);
            fields.extend(quote!(within: #within,));
        }
        if let Some(backoff) = self.backoff {
            let backoff = backoff.tokens(quark);
            fields.extend(quote!(backoff: #backoff,));
        }
        if let Some(orphans) = &self.orphans {
            fields.extend(quote!(orphans: #quark::Orphans::#orphans,));
        }
        quote!(#quark::SuperviseSpec { #fields ..#quark::SuperviseSpec::DEFAULT })
    }
}

/// One of `choices`, as the variant it stands for, where it was written.
fn choice(meta: &ParseNestedMeta<'_>, choices: &[(&str, &str)]) -> Result<Ident> {
    let text: LitStr = meta.value()?.parse()?;
    let value = text.value();
    let known = choices.iter().find(|(name, _)| *name == value);
    let variant = known.map(|(_, variant)| Ident::new(variant, Span::call_site())).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Error::new(text.span(), format!("write one of {}", names.join(", ")))
    });
    variant.map(|mut variant| {
        variant.set_span(text.span());
        variant
    })
}
