//! A message's arguments as a tuple, for who stands in for the actor.

use proc_macro2::TokenStream;
use quote::quote;

use super::Turn;

impl Turn {
    pub(super) fn arguments(&self, quark: &TokenStream) -> TokenStream {
        let message = &self.message;
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        let types = self.parameters.iter().map(|(_, argument)| argument);
        let arguments = quote!((#(#types,)*));
        // Nothing is what an empty tuple's expression is, as clippy would have it.
        let tuple = (!names.is_empty()).then(|| quote!((#(self.#names,)*)));
        quote! {
            #[automatically_derived]
            impl #quark::Message<#arguments> for #message {
                fn into_arguments(self) -> #arguments {
                    #tuple
                }
            }
        }
    }
}
