//! `#[derive(Stored)]`: a type that serde can write and read, with a version.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, LitInt, Result, Type};

/// What `#[stored(…)]` says.
#[derive(Default)]
struct Settings {
    version: Option<LitInt>,
    upgrades: Option<Type>,
}

const KEYS: &str = "#[stored(…)] takes version and upgrades: #[stored(version = 2, upgrades = ConfigV1)]";

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        let advice = "a stored type has one version, so it cannot be generic; derive it on a type that fixes the \
                      parameters";
        return Err(Error::new(input.generics.span(), advice));
    }
    let mut settings = Settings::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("stored")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("version") && settings.version.is_none() {
                settings.version = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("upgrades") && settings.upgrades.is_none() {
                settings.upgrades = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error(KEYS));
            }
            Ok(())
        })?;
    }
    let version: u32 = match &settings.version {
        Some(literal) => literal
            .base10_parse()
            .ok()
            .filter(|&version| version > 0)
            .ok_or_else(|| Error::new(literal.span(), "versions are whole numbers from 1"))?,
        None => 1,
    };
    let (quark, name) = (quote!(::quark::macro_support), &input.ident);
    let other_versions = match &settings.upgrades {
        // A `From` of the older type is asked for by the call of it.
        Some(older) => quote! {
            if stored.version < Self::VERSION {
                return <#older as #quark::Stored>::decode(stored).map(<Self as ::core::convert::From<#older>>::from);
            }
        },
        None => TokenStream::new(),
    };
    let check = settings.upgrades.as_ref().map(|older| {
        quote! {
            const _: () = assert!(
                <#older as #quark::Stored>::VERSION < #version,
                "the version of a stored type is greater than that of the type it upgrades"
            );
        }
    });
    Ok(quote! {
        #check

        #[automatically_derived]
        impl #quark::Stored for #name {
            const VERSION: u32 = #version;

            fn encode(
                &self,
                format: #quark::Format,
            ) -> ::core::result::Result<#quark::Encoded, #quark::EncodeError> {
                #quark::codec::write(self, Self::VERSION, format)
            }

            fn decode(stored: &#quark::Encoded) -> ::core::result::Result<Self, #quark::DecodeError> {
                #other_versions
                if stored.version != Self::VERSION {
                    return ::core::result::Result::Err(#quark::codec::unknown_version::<Self>(stored));
                }
                #quark::codec::read(stored)
            }
        }
    })
}
