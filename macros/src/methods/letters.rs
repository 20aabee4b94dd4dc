//! What a message tells the dead letters: a copy of itself, and what it and its error look like.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ImplItemFn, Result, Type};

use super::Turn;

/// The attribute that keeps a method's messages out of the dead letters.
const OPT_OUT: &str = "no_dead_letters";

/// Takes the attribute off the function. True if it was there.
pub(super) fn opts_out(function: &mut ImplItemFn) -> Result<bool> {
    let before = function.attrs.len();
    for attribute in function.attrs.iter().filter(|attribute| attribute.path().is_ident(OPT_OUT)) {
        attribute.meta.require_path_only().map_err(|error| {
            Error::new(error.span(), "#[no_dead_letters] says it all; it takes no arguments")
        })?;
    }
    function.attrs.retain(|attribute| !attribute.path().is_ident(OPT_OUT));
    Ok(function.attrs.len() < before)
}

impl Turn {
    /// The methods of `Method` that dead letters use.
    pub(super) fn letter(&self, quark: &TokenStream) -> TokenStream {
        let text = self.name.to_string();
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        let labels = names.iter().map(ToString::to_string);
        let copy = self.kept.then(|| {
            quote! {
                fn copy(&self) -> ::core::option::Option<Self> {
                    #[allow(unused_imports)]
                    use #quark::CannotCopy as _;
                    ::core::option::Option::Some(Self { #(#names: #quark::Copies(&self.#names).copy()?),* })
                }
            }
        });
        quote! {
            #copy

            fn describe(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #[allow(unused_imports)]
                use #quark::CannotShow as _;
                f.debug_struct(#text)#(.field(#labels, #quark::Shown(&self.#names).text()))*.finish()
            }

            fn describe_error(error: &Self::Error, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #[allow(unused_imports)]
                use #quark::CannotShow as _;
                ::core::fmt::Debug::fmt(#quark::Shown(error).text(), f)
            }
        }
    }

    /// Says which argument cannot be kept, where the type keeps dead letters.
    pub(super) fn demand_copies(&self, actor: &Type, quark: &TokenStream) -> TokenStream {
        if !self.kept {
            return TokenStream::new();
        }
        let each = self.parameters.iter().map(|(name, argument)| {
            let advice = format!(
                "`{}` takes `{name}`, which is not `Clone`, but its actor keeps dead letters, which need a copy; \
                 make its type `Clone`, or put #[no_dead_letters] on the method",
                self.name,
            );
            quote_spanned! { argument.span() =>
                const _: () = {
                    #[allow(unused_imports)]
                    use #quark::NotCopied as _;
                    let keeps = <#actor as #quark::Actor>::SPEC.dead_letters.is_some();
                    ::core::assert!(!keeps || #quark::IsCopied::<#argument>::VALUE, #advice);
                };
            }
        });
        each.collect()
    }
}
