//! `#[coalesce]`: identical calls of a method are joined.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ImplItemFn, Result, Type};

use super::Turn;

const MARK: &str = "coalesce";

/// Takes the attribute off the function. True if it was there.
pub(super) fn joins(function: &mut ImplItemFn) -> Result<bool> {
    let (marks, others) =
        function.attrs.drain(..).partition::<Vec<_>, _>(|attribute| attribute.path().is_ident(MARK));
    function.attrs = others;
    for mark in &marks {
        let error = |error: Error| Error::new(error.span(), "#[coalesce] says it all; it takes no arguments");
        mark.meta.require_path_only().map_err(error)?;
    }
    Ok(!marks.is_empty())
}

impl Turn {
    /// What the message of a joined method can do more than others, and which type keeps it from that.
    pub(super) fn coalesced(&self, actor: &Type, quark: &TokenStream) -> TokenStream {
        if !self.coalesced {
            return TokenStream::new();
        }
        let message = &self.message;
        let demands = self.parameters.iter().map(
            |(_, argument)| quote_spanned!(argument.span() => an_argument_tells_calls_apart::<#argument>();),
        );
        let (ok, error) = self.outcome(quark);
        let span = self.name.span();
        let answers = quote_spanned! { span =>
            an_answer_goes_to_several::<#ok>();
            an_answer_goes_to_several::<#error>();
        };
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        quote! {
            const _: fn() = || {
                fn an_argument_tells_calls_apart<T: #quark::Comparable>() {}
                fn an_answer_goes_to_several<T: #quark::Answerable>() {}
                #(#demands)*
                #answers
            };

            #[automatically_derived]
            impl ::core::clone::Clone for #message {
                fn clone(&self) -> Self {
                    Self { #(#names: ::core::clone::Clone::clone(&self.#names)),* }
                }
            }

            #[automatically_derived]
            impl ::core::cmp::PartialEq for #message {
                fn eq(&self, other: &Self) -> bool {
                    let _ = other;
                    true #(&& self.#names == other.#names)*
                }
            }

            #[automatically_derived]
            impl ::core::cmp::Eq for #message {}

            #[automatically_derived]
            impl ::core::hash::Hash for #message {
                fn hash<H: ::core::hash::Hasher>(&self, state: &mut H) {
                    let _ = &state;
                    #(::core::hash::Hash::hash(&self.#names, state);)*
                }
            }

            #[automatically_derived]
            impl #quark::Coalesced<#actor> for #message {}
        }
    }
}
