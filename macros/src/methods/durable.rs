//! `#[durable]`: a method whose messages can be stored, so that a transaction can send them.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ImplItemFn, Result, Type};

use super::{Found, Turn};

const MARK: &str = "durable";

/// Takes the attribute off the function. True if it was there.
pub(super) fn is_durable(function: &mut ImplItemFn) -> Result<bool> {
    let (marks, others) =
        function.attrs.drain(..).partition::<Vec<_>, _>(|attribute| attribute.path().is_ident(MARK));
    function.attrs = others;
    for mark in &marks {
        let error = |error: Error| Error::new(error.span(), "#[durable] says it all; it takes no arguments");
        mark.meta.require_path_only().map_err(error)?;
    }
    Ok(!marks.is_empty())
}

impl Turn {
    /// What the message of a durable method can do more than others, and which argument keeps it from that.
    pub(super) fn durable(&self, actor: &Type, quark: &TokenStream) -> TokenStream {
        if !self.durable {
            return TokenStream::new();
        }
        let (message, name) = (&self.message, self.name.to_string());
        let demands = self.parameters.iter().map(
            |(_, argument)| quote_spanned!(argument.span() => an_argument_can_be_stored::<#argument>();),
        );
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        let types: Vec<_> = self.parameters.iter().map(|(_, argument)| argument).collect();
        quote! {
            const _: fn() = || {
                fn an_argument_can_be_stored<T: #quark::Storable>() {}
                #(#demands)*
            };

            #[automatically_derived]
            impl #quark::DurableMessage<#actor> for #message {
                const NAME: &'static str = #name;

                fn encode(&self) -> ::core::result::Result<#quark::Encoded, #quark::EncodeError> {
                    #quark::durable::encode(&(#(&self.#names,)*))
                }

                fn decode(
                    stored: &#quark::Encoded,
                ) -> ::core::result::Result<Self, #quark::DecodeError> {
                    let (#(#names,)*): (#(#types,)*) = #quark::durable::decode(stored)?;
                    ::core::result::Result::Ok(Self { #(#names),* })
                }
            }
        }
    }
}

impl Found {
    /// The function that names the durable methods.
    pub(super) fn durable(&self, quark: &TokenStream) -> TokenStream {
        let mut durable = self.turns.iter().filter(|turn| turn.durable).map(|turn| &turn.message).peekable();
        if durable.peek().is_none() {
            return TokenStream::new();
        }
        quote! {
            fn durable(methods: &mut #quark::DurableMethods<Self>) {
                #(methods.on::<#durable>();)*
            }
        }
    }
}
