//! `#[on_child_failure]`: the function that decides what happens to a child that failed.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, Ident, ImplItemFn, Result, ReturnType, Type};

/// Checks the function's shape, as far as it can be seen; the compiler checks its types.
pub(super) fn check(function: &ImplItemFn) -> Result<()> {
    let signature = &function.sig;
    let shape = "an #[on_child_failure] function decides without the actor, which may be in the middle of a turn: \
                 `fn decide(failure: &ChildFailure) -> Directive`";
    if let Some(token) = &signature.asyncness {
        return Err(Error::new_spanned(token, shape));
    }
    let mut inputs = signature.inputs.iter();
    let takes_failure = match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(failure)), None) => matches!(&*failure.ty, Type::Reference(_)),
        _ => false,
    };
    if !takes_failure || matches!(signature.output, ReturnType::Default) {
        return Err(Error::new_spanned(&signature.ident, shape));
    }
    Ok(())
}

pub(super) fn tokens(name: &Ident, quark: &TokenStream) -> TokenStream {
    quote! {
        const ON_CHILD_FAILURE: bool = true;

        fn on_child_failure(failure: &#quark::ChildFailure) -> #quark::Directive {
            Self::#name(failure)
        }
    }
}
