//! `#[methods]`: each `pub async fn` becomes a message type and a method of the typed reference.

mod arguments;
mod coalesce;
mod durable;
mod letters;
mod reminder;
mod stream;
mod supervisor;

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{
    Attribute, Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, Pat, Result, ReturnType, Type, Visibility,
};

use self::stream::Stream;

/// The attributes that mark what a method is for.
const MARKS: [&str; 5] = ["on_activate", "on_deactivate", "on_stream", "on_child_failure", reminder::MARK];

pub(crate) fn expand(arguments: &TokenStream, mut block: ItemImpl) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(
            arguments.span(),
            "#[methods] takes no arguments; settings go to #[actor(…)]",
        ));
    }
    if let Some((_, path, _)) = &block.trait_ {
        let advice = "#[methods] stands on the actor's own block; write `impl Type { … }`";
        return Err(Error::new_spanned(path, advice));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, "an actor type cannot be generic"));
    }
    let actor = (*block.self_ty).clone();
    let (reference, actor_name) = reference(&actor)?;

    let mut found = Found::default();
    let mut errors: Option<Error> = None;
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        if let Err(error) = found.take(function, &actor_name) {
            match &mut errors {
                Some(all) => all.combine(error),
                none => *none = Some(error),
            }
        }
    }
    if let Some(errors) = errors {
        return Ok(with_errors(&block, &actor, &errors));
    }
    for turn in &mut found.turns {
        turn.name_actor(&actor);
    }
    let quark = quote!(::quark::macro_support);
    let messages = found.turns.iter().enumerate().map(|(index, turn)| turn.message(index, &actor, &quark));
    let callers = found.turns.iter().filter(|turn| turn.public).map(|turn| turn.caller(&actor, &quark));
    let table = found.turns.iter().map(|turn| turn.entry(&quark));
    let hooks = found.hooks(&quark);
    let subscriptions = found.subscriptions(&quark);
    let durable = found.durable(&quark);
    let reminders = found.reminders(&quark);

    // `pub` marks the interface here, wherever the type itself can be reached from.
    Ok(quote! {
        #[allow(unreachable_pub)]
        #block

        const _: () = {
            #(#messages)*

            impl #reference {
                #(#callers)*
            }

            #[automatically_derived]
            impl #quark::Methods for #actor {
                const METHODS: &'static [#quark::MethodSpec] = &[#(#table),*];
                #hooks
                #subscriptions
                #durable
                #reminders
            }
        };
    })
}

/// The block as it stands and an empty interface beside the errors, so that nothing else is reported missing.
fn with_errors(block: &ItemImpl, actor: &Type, errors: &Error) -> TokenStream {
    let errors = errors.to_compile_error();
    quote! {
        #errors

        #[allow(unreachable_pub, dead_code)]
        #block

        impl ::quark::macro_support::Methods for #actor {
            const METHODS: &'static [::quark::macro_support::MethodSpec] = &[];
        }
    }
}

/// `Type` -> `TypeRef`, in the same module, and the type's own name.
fn reference(actor: &Type) -> Result<(syn::Path, Ident)> {
    let Type::Path(path) = actor else {
        return Err(Error::new_spanned(actor, "#[methods] stands on `impl Type`, where Type derives Actor"));
    };
    let mut path = path.path.clone();
    let Some(last) = path.segments.last_mut() else {
        return Err(Error::new_spanned(actor, "#[methods] stands on a named type"));
    };
    let name = last.ident.clone();
    last.ident = format_ident!("{name}Ref");
    Ok((path, name))
}

/// What the block holds.
#[derive(Default)]
struct Found {
    turns: Vec<Turn>,
    on_activate: Option<Hook>,
    on_deactivate: Option<Hook>,
    on_child_failure: Option<Ident>,
    streams: Vec<(Stream, usize)>,
    reminders: Vec<reminder::Reminder>,
}

struct Hook {
    name: Ident,
    takes_cx: bool,
    takes_reason: bool,
}

/// A method that runs as a turn.
struct Turn {
    name: Ident,
    message: Ident,
    docs: Vec<Attribute>,
    exclusive: bool,
    public: bool,
    /// The parameters that travel, in order.
    parameters: Vec<(Ident, Type)>,
    /// Where the context goes among all parameters.
    cx_at: Option<usize>,
    output: ReturnType,
    /// Whether its messages may be kept as dead letters.
    kept: bool,
    /// Whether its identical calls are joined.
    coalesced: bool,
    /// Whether its messages can be stored.
    durable: bool,
}

impl Found {
    fn take(&mut self, function: &mut ImplItemFn, actor: &Ident) -> Result<()> {
        let marks: Vec<Attribute> =
            function.attrs.iter().filter(|attribute| is_mark(attribute)).cloned().collect();
        function.attrs.retain(|attribute| !is_mark(attribute));
        let kept = !letters::opts_out(function)?;
        let coalesced = coalesce::joins(function)?;
        let durable = durable::is_durable(function)?;
        let turns_before = self.turns.len();
        let name = function.sig.ident.clone();
        match marks.as_slice() {
            [] => {
                let is_interface =
                    matches!(function.vis, Visibility::Public(_)) && function.sig.asyncness.is_some();
                if is_interface {
                    self.turns.push(Turn::read(function, actor, true)?);
                }
                Ok(())
            }
            [mark] if mark.path().is_ident("on_stream") => {
                let stream = Stream::read(mark)?;
                demand_async(function, "a stream's items arrive in turns")?;
                let turn = Turn::read(function, actor, matches!(function.vis, Visibility::Public(_)))?;
                if turn.parameters.len() != 1 {
                    let advice = "an #[on_stream] method takes `&mut self` or `&self`, `cx: &Cx` if it needs it, \
                                  and one item";
                    return Err(Error::new_spanned(&function.sig.inputs, advice));
                }
                stream.check(&turn)?;
                self.streams.push((stream, self.turns.len()));
                self.turns.push(turn);
                Ok(())
            }
            [mark] if mark.path().is_ident(reminder::MARK) => self.take_reminder(mark, function, actor),
            [mark] if mark.path().is_ident("on_child_failure") => {
                supervisor::check(function)?;
                match self.on_child_failure.replace(name.clone()) {
                    None => Ok(()),
                    Some(_) => Err(Error::new_spanned(&name, "an actor has one such function")),
                }
            }
            [mark] => {
                let activates = mark.path().is_ident("on_activate");
                demand_async(function, "hooks may wait")?;
                let hook = Hook::read(function, !activates)?;
                let place = if activates { &mut self.on_activate } else { &mut self.on_deactivate };
                match place.replace(hook) {
                    None => Ok(()),
                    Some(_) => {
                        Err(Error::new_spanned(&name, "an actor has one such hook; call the other from it"))
                    }
                }
            }
            [_, second, ..] => {
                Err(Error::new_spanned(second, "a method is one of hook, stream handler and reminder"))
            }
        }?;
        match self.turns.get_mut(turns_before) {
            Some(turn) if turn.public || !coalesced => {
                (turn.kept, turn.coalesced, turn.durable) = (kept, coalesced, durable);
            }
            _ if coalesced => {
                let advice = "#[coalesce] joins calls, so it stands on a method that can be called: make it \
                              `pub async fn`";
                return Err(Error::new_spanned(&name, advice));
            }
            _ if durable => {
                let advice = "#[durable] stands on a method that takes messages; this is none";
                return Err(Error::new_spanned(&name, advice));
            }
            _ if kept => {}
            _ => {
                let advice = "#[no_dead_letters] stands on a method that takes messages; this is none";
                return Err(Error::new_spanned(&name, advice));
            }
        }
        Ok(())
    }

    fn hooks(&self, quark: &TokenStream) -> TokenStream {
        let mut tokens = TokenStream::new();
        if let Some(Hook { name, takes_cx, .. }) = &self.on_activate {
            let cx = takes_cx.then(|| quote!(cx));
            tokens.extend(quote! {
                const ON_ACTIVATE: bool = true;

                async fn on_activate<'a>(
                    &'a mut self,
                    cx: &'a #quark::Cx,
                ) -> ::core::result::Result<(), #quark::HookError> {
                    let _ = cx;
                    self.#name(#cx).await.map_err(::core::convert::Into::into)
                }
            });
        }
        if let Some(Hook { name, takes_cx, takes_reason }) = &self.on_deactivate {
            let mut arguments = Vec::new();
            arguments.extend(takes_cx.then(|| quote!(cx)));
            arguments.extend(takes_reason.then(|| quote!(why)));
            tokens.extend(quote! {
                const ON_DEACTIVATE: bool = true;

                async fn on_deactivate<'a>(
                    &'a mut self,
                    cx: &'a #quark::Cx,
                    why: #quark::DeactivationReason,
                ) -> ::core::result::Result<(), #quark::HookError> {
                    let _ = (cx, why);
                    self.#name(#(#arguments),*).await.map_err(::core::convert::Into::into)
                }
            });
        }
        if let Some(name) = &self.on_child_failure {
            tokens.extend(supervisor::tokens(name, quark));
        }
        tokens
    }

    fn subscriptions(&self, quark: &TokenStream) -> TokenStream {
        if self.streams.is_empty() {
            return TokenStream::new();
        }
        let each = self.streams.iter().map(|(stream, turn)| stream.subscription(&self.turns[*turn], quark));
        quote! {
            fn subscribe(subscriptions: &mut #quark::Subscriptions<Self>) {
                #(#each)*
            }
        }
    }
}

fn is_mark(attribute: &Attribute) -> bool {
    MARKS.iter().any(|mark| attribute.path().is_ident(mark))
}

fn demand_async(function: &ImplItemFn, why: &str) -> Result<()> {
    match function.sig.asyncness {
        Some(_) => Ok(()),
        None => Err(Error::new_spanned(function.sig.fn_token, format!("{why}: make it `async fn`"))),
    }
}

impl Hook {
    fn read(function: &ImplItemFn, may_take_reason: bool) -> Result<Self> {
        let expected = if may_take_reason {
            "an #[on_deactivate] method takes `&mut self`, and `cx: &Cx` and `why: DeactivationReason` if it \
             needs them"
        } else {
            "an #[on_activate] method takes `&mut self`, and `cx: &Cx` if it needs it"
        };
        let error = || Error::new_spanned(&function.sig.inputs, expected);
        let mut inputs = function.sig.inputs.iter();
        if !matches!(inputs.next(), Some(FnArg::Receiver(receiver)) if receiver.mutability.is_some()) {
            return Err(error());
        }
        let mut hook = Self { name: function.sig.ident.clone(), takes_cx: false, takes_reason: false };
        for input in inputs {
            let FnArg::Typed(typed) = input else { return Err(error()) };
            match (is_cx(&typed.ty), may_take_reason) {
                (true, _) if !hook.takes_cx && !hook.takes_reason => hook.takes_cx = true,
                (false, true) if !hook.takes_reason => hook.takes_reason = true,
                _ => return Err(error()),
            }
        }
        if !matches!(function.sig.output, ReturnType::Type(..)) {
            let advice = "a hook says whether it went well: return `Result<()>`";
            return Err(Error::new_spanned(&function.sig.ident, advice));
        }
        Ok(hook)
    }
}

impl Turn {
    fn read(function: &ImplItemFn, actor: &Ident, public: bool) -> Result<Self> {
        let signature = &function.sig;
        if let Some(parameter) = signature.generics.params.first() {
            let advice = "a method of the interface is one message type, so it cannot be generic; \
                          make it private, or name the types and lifetimes";
            return Err(Error::new_spanned(parameter, advice));
        }
        let mut inputs = signature.inputs.iter();
        let receiver = match inputs.next() {
            Some(FnArg::Receiver(receiver)) => receiver,
            _ => {
                let advice = "a method of the interface takes `&mut self` (an exclusive turn) or `&self` (a \
                              shared one); make it private if it is a helper";
                return Err(Error::new_spanned(&signature.ident, advice));
            }
        };
        if receiver.reference.is_none() || receiver.colon_token.is_some() {
            let advice = "an actor lends itself to its methods: take `&mut self` or `&self`";
            return Err(Error::new_spanned(receiver, advice));
        }
        if let Some((_, Some(lifetime))) = &receiver.reference {
            return Err(Error::new_spanned(lifetime, "leave the lifetime out: `&mut self` or `&self`"));
        }
        let (mut parameters, mut cx_at) = (Vec::new(), None);
        for (index, input) in inputs.enumerate() {
            let FnArg::Typed(typed) = input else { continue };
            if is_cx(&typed.ty) {
                if cx_at.replace(index).is_some() {
                    return Err(Error::new_spanned(typed, "one `cx: &Cx` is enough"));
                }
                continue;
            }
            if let Some(reference) = borrowed(&typed.ty) {
                let advice = "arguments travel with the call, so they are owned: take a `String` for `&str`, a \
                              `Vec` for a slice, an `Arc` for what is shared";
                return Err(Error::new_spanned(reference, advice));
            }
            if let Type::ImplTrait(hidden) = &*typed.ty {
                return Err(Error::new_spanned(hidden, "arguments travel with the call: name the type"));
            }
            let name = match &*typed.pat {
                Pat::Ident(name) if name.subpat.is_none() && name.by_ref.is_none() => name.ident.clone(),
                // A pattern is taken apart by the method itself; on the way it needs some name.
                other => Ident::new(&format!("argument_{index}"), other.span()),
            };
            parameters.push((name, (*typed.ty).clone()));
        }
        if let ReturnType::Type(_, output) = &signature.output {
            if let Some(reference) = borrowed(output) {
                let advice = "an answer travels to its caller, so it is owned: return a clone or an `Arc`";
                return Err(Error::new_spanned(reference, advice));
            }
            if let Type::ImplTrait(hidden) = &**output {
                return Err(Error::new_spanned(hidden, "an answer travels to its caller: name the type"));
            }
        }
        let name = signature.ident.clone();
        Ok(Self {
            // The actor's name is in it lest it hide a type of the user's: a `frame` method takes a `Frame`.
            message: Ident::new(&format!("{}Of{actor}", camel_case(&name.to_string())), name.span()),
            docs: function
                .attrs
                .iter()
                .filter(|attribute| attribute.path().is_ident("doc"))
                .cloned()
                .collect(),
            name,
            exclusive: receiver.mutability.is_some(),
            public,
            parameters,
            cx_at,
            output: signature.output.clone(),
            kept: true,
            coalesced: false,
            durable: false,
        })
    }

    fn name_actor(&mut self, actor: &Type) {
        let mut self_is = SelfIs(actor);
        for (_, parameter) in &mut self.parameters {
            self_is.visit_type_mut(parameter);
        }
        self_is.visit_return_type_mut(&mut self.output);
    }

    /// The answer's success and error types.
    fn outcome(&self, quark: &TokenStream) -> (TokenStream, TokenStream) {
        match &self.output {
            ReturnType::Default => (quote!(()), quote!(::core::convert::Infallible)),
            ReturnType::Type(_, output) if is_result(output) => (
                quote_spanned!(output.span() => <#output as #quark::ResultLike>::Ok),
                quote_spanned!(output.span() => <#output as #quark::ResultLike>::Error),
            ),
            ReturnType::Type(_, output) => (quote!(#output), quote!(::core::convert::Infallible)),
        }
    }

    fn returns_result(&self) -> bool {
        matches!(&self.output, ReturnType::Type(_, output) if is_result(output))
    }

    fn entry(&self, quark: &TokenStream) -> TokenStream {
        let (name, exclusive) = (self.name.to_string(), self.exclusive);
        quote!(#quark::MethodSpec { name: #name, exclusive: #exclusive })
    }

    fn message(&self, index: usize, actor: &Type, quark: &TokenStream) -> TokenStream {
        let Self { name, message, parameters, .. } = self;
        let fields = parameters.iter().map(|(name, field)| quote!(#name: #field));
        let mode = Ident::new(if self.exclusive { "Exclusive" } else { "Shared" }, name.span());
        let (ok, error) = self.outcome(quark);
        let mut arguments: Vec<TokenStream> = parameters.iter().map(|(name, _)| quote!(self.#name)).collect();
        if let Some(at) = self.cx_at {
            arguments.insert(at, quote!(cx));
        }
        // Not at the method's span: where a macro of the user's made the method, that would be another `actor`.
        let receiver = quote!(actor);
        let call = quote_spanned!(name.span() => #receiver.#name(#(#arguments),*));
        // Says which method asks for it, before the turn's own bounds do so less plainly.
        let sync = (!self.exclusive).then(|| {
            quote_spanned! { name.span() =>
                const _: fn() = || {
                    fn a_shared_method_needs_a_sync_actor<A: ::core::marker::Sync>() {}
                    a_shared_method_needs_a_sync_actor::<#actor>();
                };
            }
        });
        let coalesced = self.coalesced(actor, quark);
        let durable = self.durable(actor, quark);
        let letter = self.letter(quark);
        let arguments = self.arguments(quark);
        let demand_copies = self.demand_copies(actor, quark);
        // The method's own future, not an async block around it, which would keep the message a second time.
        let body = if self.returns_result() { call } else { quote!(#quark::Unfailing::new(#call)) };
        quote! {
            #sync
            #demand_copies

            pub struct #message { #(#fields),* }

            #coalesced
            #durable
            #arguments

            #[automatically_derived]
            impl #quark::Method<#actor> for #message {
                type Mode = #quark::#mode;
                type Ok = #ok;
                type Error = #error;
                const INDEX: usize = #index;

                fn run<'a>(
                    self,
                    actor: <#quark::#mode as #quark::TurnMode<#actor>>::Borrow<'a>,
                    cx: &'a #quark::Cx,
                ) -> impl ::core::future::Future<
                    Output = ::core::result::Result<Self::Ok, Self::Error>,
                > + ::core::marker::Send + 'a {
                    let _ = cx;
                    #body
                }

                #letter
            }
        }
    }

    fn caller(&self, actor: &Type, quark: &TokenStream) -> TokenStream {
        let Self { name, message, docs, parameters, .. } = self;
        let inputs = parameters.iter().map(|(name, input)| quote!(#name: #input));
        let names = parameters.iter().map(|(name, _)| name);
        let (call, begin) = if self.coalesced {
            (quote!(SharedCall), quote!(shared_call))
        } else {
            (quote!(Call), quote!(call))
        };
        quote! {
            #(#docs)*
            #[inline]
            pub fn #name(&self, #(#inputs),*) -> #quark::#call<'_, #actor, #message> {
                self.0.#begin(#message { #(#names),* })
            }
        }
    }
}

/// A reference that ends: `&'static` is as good as owned.
fn borrowed(candidate: &Type) -> Option<&syn::TypeReference> {
    let Type::Reference(reference) = candidate else { return None };
    let forever = reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static");
    (!forever).then_some(reference)
}

/// Writes the actor's own type for `Self`, which means the message once it stands there.
struct SelfIs<'a>(&'a Type);

impl VisitMut for SelfIs<'_> {
    fn visit_type_mut(&mut self, visited: &mut Type) {
        match visited {
            Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self") => {
                *visited = self.0.clone()
            }
            other => syn::visit_mut::visit_type_mut(self, other),
        }
    }
}

/// `&Cx`, under whatever path.
fn is_cx(parameter: &Type) -> bool {
    let Type::Reference(reference) = parameter else { return false };
    reference.mutability.is_none() && is_named(&reference.elem, "Cx")
}

/// Whether the type is a `Result` by its name, under whatever path or alias of that name.
fn is_result(output: &Type) -> bool {
    is_named(output, "Result")
}

/// Whether the type goes by this name, under whatever path.
fn is_named(candidate: &Type, name: &str) -> bool {
    let Type::Path(path) = candidate else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == name)
}

fn camel_case(name: &str) -> String {
    let words = name.trim_start_matches("r#").split('_').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect::<String>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_name_becomes_a_type_name() {
        assert_eq!(camel_case("analyze"), "Analyze");
        assert_eq!(camel_case("set_white__balance"), "SetWhiteBalance");
        assert_eq!(camel_case("r#move"), "Move");
    }
}
