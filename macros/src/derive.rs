//! `#[derive(Actor)]`: the spec, the constructor, and the typed reference.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, Field, Fields, Result};

use crate::attributes::parts::Parts;
use crate::attributes::{ActorAttributes, duration_tokens};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "an actor is a struct; put the enum into a field of one"));
    };
    if !input.generics.params.is_empty() {
        let advice = "an actor type has one wire name, so it cannot be generic; \
                      derive it on a struct that fixes the parameters";
        return Err(Error::new(input.generics.span(), advice));
    }
    let attributes = ActorAttributes::read(&input.attrs)?;
    let parts = Parts::read(&data.fields)?;
    if !parts.is_empty() && attributes.workers.is_some() {
        let advice = "a stateless worker is one of several behind its key, so nothing can be stored for the key; leave \
                      `workers(…)` out, or the stored fields";
        return Err(Error::new(input.ident.span(), advice));
    }
    let quark = quote!(::quark::macro_support);
    let (actor, visibility) = (&input.ident, &input.vis);
    let reference = format_ident!("{actor}Ref");
    let spec = spec(&attributes, actor, &quark);
    let parts = parts.tokens(&quark);
    let create = if attributes.factory { TokenStream::new() } else { create(actor, &data.fields, &quark)? };
    let about = format!("A reference to one [`{actor}`] of the grid.");

    Ok(quote! {
        #[doc = #about]
        #[derive(Clone, Debug)]
        #visibility struct #reference(#quark::ActorRef<#actor>);

        #[automatically_derived]
        impl ::core::convert::From<#quark::ActorRef<#actor>> for #reference {
            fn from(actor: #quark::ActorRef<#actor>) -> Self {
                Self(actor)
            }
        }

        #[automatically_derived]
        impl ::core::ops::Deref for #reference {
            type Target = #quark::ActorRef<#actor>;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        #[automatically_derived]
        impl #quark::Reference for #reference {
            type Actor = #actor;
        }

        #[automatically_derived]
        impl #quark::Actor for #actor {
            const SPEC: #quark::ActorSpec = #spec;
            type Ref = #reference;
            #parts
        }

        #create
    })
}

fn spec(attributes: &ActorAttributes, actor: &syn::Ident, quark: &TokenStream) -> TokenStream {
    let rust_type = actor.to_string();
    let name = attributes.name.as_ref().map_or_else(|| rust_type.clone(), syn::LitStr::value);
    let mut fields = TokenStream::new();
    if let Some(idle) = attributes.idle {
        let idle = duration_tokens(idle);
        fields.extend(quote!(idle: #idle,));
    }
    if let Some(limit) = attributes.activation_limit {
        let limit = duration_tokens(limit);
        fields.extend(quote!(activation_limit: #limit,));
    }
    if let Some(limit) = attributes.turn_limit {
        let limit = duration_tokens(limit);
        fields.extend(quote!(turn_limit: #limit,));
    }
    if let Some(mailbox) = attributes.mailbox {
        fields.extend(quote!(mailbox: #mailbox,));
    }
    if let Some(gpu) = &attributes.gpu {
        let need = gpu.tokens(quark);
        fields.extend(quote!(gpu: ::core::option::Option::Some(#need),));
    }
    if !attributes.prewarm.is_empty() {
        let rules = attributes.prewarm.iter().map(|rule| rule.tokens(quark));
        fields.extend(quote!(prewarm: &[#(#rules),*],));
    }
    if let Some(letters) = &attributes.dead_letters {
        let letters = letters.tokens(quark);
        fields.extend(quote!(dead_letters: ::core::option::Option::Some(#letters),));
    }
    if let Some(workers) = &attributes.workers {
        let workers = workers.tokens(quark);
        fields.extend(quote!(workers: ::core::option::Option::Some(#workers),));
    }
    if let Some(store) = &attributes.reminders {
        fields.extend(quote!(reminders: #store,));
    }
    if let Some(guards) = attributes.guards.tokens(quark) {
        fields.extend(quote!(guards: #guards,));
    }
    if let Some(supervise) = &attributes.supervise {
        let supervise = supervise.tokens(quark);
        fields.extend(quote!(supervise: ::core::option::Option::Some(#supervise),));
    }
    if let Some(root) = &attributes.root {
        let root = root.tokens(quark);
        fields.extend(quote!(root: ::core::option::Option::Some(#root),));
    }
    if fields.is_empty() {
        return quote!(#quark::ActorSpec::new(#name, #rust_type));
    }
    quote!(#quark::ActorSpec { #fields ..#quark::ActorSpec::new(#name, #rust_type) })
}

fn create(actor: &syn::Ident, fields: &Fields, quark: &TokenStream) -> Result<TokenStream> {
    let values = fields.iter().map(initial).collect::<Result<Vec<_>>>()?;
    let body = match fields {
        Fields::Named(named) => {
            let names = named.named.iter().map(|field| &field.ident);
            quote!(Self { #(#names: #values),* })
        }
        Fields::Unnamed(_) => quote!(Self(#(#values),*)),
        Fields::Unit => quote!(Self),
    };
    Ok(quote! {
        #[automatically_derived]
        impl #quark::Create for #actor {
            fn create() -> Self {
                #body
            }
        }
    })
}

fn initial(field: &Field) -> Result<TokenStream> {
    match field.attrs.iter().find(|attribute| attribute.path().is_ident("init")) {
        Some(init) => {
            let value: Expr = init.parse_args().map_err(|error| {
                Error::new(error.span(), "#[init(…)] takes the expression that the field starts as")
            })?;
            Ok(quote!(#value))
        }
        // The span makes a missing `Default` point at the field.
        None => {
            let field_type = &field.ty;
            Ok(quote_spanned!(field_type.span() => <#field_type as ::core::default::Default>::default()))
        }
    }
}
