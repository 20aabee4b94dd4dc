//! `dead_letters(…)`: which messages that fail are kept, how many, and when they are tried again.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{LitBool, LitInt, Result};

use super::backoff::Backoff;
use super::once;

#[derive(Default)]
pub(crate) struct DeadLetters {
    max: Option<u32>,
    retries: Option<u32>,
    backoff: Option<Backoff>,
    errors: Option<bool>,
    asks: bool,
}

impl DeadLetters {
    pub(super) fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut found = Self::default();
        if !meta.input.peek(syn::token::Paren) {
            // `dead_letters` alone: kept, with the defaults.
            return Ok(found);
        }
        meta.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "max" => {
                    let max: LitInt = meta.value()?.parse()?;
                    let max = max.base10_parse().ok().filter(|&max: &u32| max > 0);
                    let advice = "at least one letter is kept: `max = 1000`";
                    once(&meta, &mut found.max, max.ok_or_else(|| meta.error(advice))?)
                }
                "retries" => {
                    let retries: LitInt = meta.value()?.parse()?;
                    let advice = "say how often a letter is sent again: `retries = 5`";
                    let retries = retries.base10_parse().map_err(|_| meta.error(advice))?;
                    once(&meta, &mut found.retries, retries)
                }
                "backoff" => once(&meta, &mut found.backoff, Backoff::read(&meta)?),
                "errors" => {
                    let errors: LitBool = meta.value()?.parse()?;
                    once(&meta, &mut found.errors, errors.value)
                }
                "asks" => {
                    found.asks = true;
                    Ok(())
                }
                _ => Err(meta.error(
                    "unknown setting; dead_letters(…) takes max, retries, backoff, errors or asks, such as \
                     dead_letters(max = 1000, retries = 5, backoff = \"100ms..30s\")",
                )),
            }
        })?;
        if found.backoff.is_some() && found.retries.unwrap_or(0) == 0 {
            return Err(meta.error("a backoff is the wait between retries: add `retries = 5`"));
        }
        Ok(found)
    }

    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let asks = self.asks;
        let mut fields = quote!(asks: #asks,);
        if let Some(max) = self.max {
            fields.extend(quote!(max: #max,));
        }
        if let Some(retries) = self.retries {
            fields.extend(quote!(retries: #retries,));
        }
        if let Some(backoff) = self.backoff {
            let backoff = backoff.tokens(quark);
            fields.extend(quote!(backoff: #backoff,));
        }
        if let Some(errors) = self.errors {
            fields.extend(quote!(errors: #errors,));
        }
        quote!(#quark::DeadLetterSpec { #fields ..#quark::DeadLetterSpec::DEFAULT })
    }
}
