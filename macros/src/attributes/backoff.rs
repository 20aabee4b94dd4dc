//! `backoff = "100ms..30s"`, wherever something is tried again.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Error, LitStr, Result};

use super::{duration_tokens, parse_duration};

/// Waits between tries: the first and the longest.
#[derive(Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let text: LitStr = meta.value()?.parse()?;
        let value = text.value();
        if value == "none" {
            return Ok(Self { first: Duration::ZERO, max: Duration::ZERO });
        }
        let parsed = value
            .split_once("..")
            .and_then(|(first, max)| Some(Self { first: parse_duration(first)?, max: parse_duration(max)? }));
        let sensible = parsed.filter(|backoff| !backoff.first.is_zero() && backoff.first <= backoff.max);
        sensible.ok_or_else(|| {
            let advice = "a backoff is the first and the longest wait, such as \"100ms..30s\", or \"none\"";
            Error::new(text.span(), advice)
        })
    }

    pub(super) fn tokens(self, quark: &TokenStream) -> TokenStream {
        let (first, max) = (duration_tokens(self.first), duration_tokens(self.max));
        quote!(#quark::Backoff::new(#first, #max))
    }
}
