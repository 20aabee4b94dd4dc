//! Reading `workers(…)`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Error, LitInt, Result};

use super::once;

/// `workers(max = N)`.
pub(crate) struct Workers {
    max: u32,
}

/// The most that the runtime makes: `quark_runtime::workers::WORKERS_MAX`.
const WORKERS_MAX: u32 = 1_024;

impl Workers {
    pub(super) fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut max = None;
        let example = "workers(max = 8)";
        if meta.input.peek(syn::token::Paren) {
            meta.parse_nested_meta(|meta| {
                if !meta.path.is_ident("max") {
                    return Err(meta.error(format!("unknown setting; write {example}")));
                }
                let literal: LitInt = meta.value()?.parse()?;
                let count = literal.base10_parse().ok().filter(|count| (1..=WORKERS_MAX).contains(count));
                let advice = format!("a key has between 1 and {WORKERS_MAX} workers");
                let count = count.ok_or_else(|| Error::new(literal.span(), advice))?;
                once(&meta, &mut max, count)
            })?;
        }
        let missing = format!("workers(…) needs their greatest number: {example}");
        Ok(Self { max: max.ok_or_else(|| Error::new(meta.path.span(), missing))? })
    }

    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let max = self.max;
        quote!(#quark::Workers::max(#max))
    }
}
