//! Reading `#[on_stream(…)]`: which streams, and how their items flow.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, GenericArgument, LitInt, LitStr, PathArguments, Result, Token, Type};

use super::Turn;
use crate::attributes::{duration_tokens, once, parse_duration};

/// One `#[on_stream(…)]`.
pub(super) struct Stream {
    source: Source,
    flow: Flow,
}

/// Which streams.
enum Source {
    /// A namespace or pattern.
    Pattern(LitStr),
    /// A constant `Topic` or `Topics`.
    Topic(Box<Expr>),
}

#[derive(Default)]
struct Flow {
    when_full: Option<&'static str>,
    buffer: Option<TokenStream>,
    sample: Option<TokenStream>,
    rate: Option<u32>,
    batch: Option<u32>,
}

const KEYS: &str = "flow, buffer, sample, rate and batch";

impl Stream {
    pub(super) fn read(mark: &Attribute) -> Result<Self> {
        let example = "write the stream's namespace: #[on_stream(\"cameras/frames\")], or a topic: \
                       #[on_stream(FRAMES)]";
        let syn::Meta::List(list) = &mark.meta else { return Err(Error::new_spanned(mark, example)) };
        let read = |input: ParseStream<'_>| {
            if input.is_empty() || input.peek2(Token![=]) {
                return Err(Error::new_spanned(mark, example));
            }
            let source = if input.peek(LitStr) {
                Source::Pattern(input.parse()?)
            } else if input.peek(syn::Lit) {
                return Err(Error::new_spanned(mark, example));
            } else {
                Source::Topic(input.parse()?)
            };
            let mut flow = Flow::default();
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
                syn::meta::parser(|meta| flow.take(&meta)).parse2(input.parse()?)?;
            }
            Ok(Self { source, flow })
        };
        let stream = read.parse2(list.tokens.clone())?;
        if let Source::Pattern(pattern) = &stream.source {
            check_pattern(pattern)?;
        }
        Ok(stream)
    }

    /// What the turn takes, looked at together with what the attribute says.
    pub(super) fn check(&self, turn: &Turn) -> Result<()> {
        let (_, parameter) = &turn.parameters[0];
        if self.flow.batch.is_some() && of_vec(parameter).is_none() {
            let advice = "with `batch = …` the items that wait come together: take a `Vec` of them";
            return Err(Error::new_spanned(parameter, advice));
        }
        Ok(())
    }

    /// The subscription, as a statement.
    pub(super) fn subscription(&self, turn: &Turn, quark: &TokenStream) -> TokenStream {
        let Turn { message, parameters, .. } = turn;
        let (name, parameter) = &parameters[0];
        let batched = self.flow.batch.is_some();
        let item = of_vec(parameter).filter(|_| batched).unwrap_or(parameter);
        let source = match &self.source {
            Source::Pattern(pattern) => quote!(const { #quark::Topics::<#item>::matching(#pattern) }),
            Source::Topic(topic) => quote!(#topic),
        };
        let flow = self.flow.tokens(quark);
        let on = if batched { quote!(on_batch) } else { quote!(on) };
        // The item's type comes from the source, so that one of another type is wrong at the parameter.
        let message = quote!(|#name| #message { #name });
        quote!(subscriptions.#on(#source, #flow, #message);)
    }
}

impl Flow {
    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match key.as_str() {
            "flow" => {
                let text: LitStr = meta.value()?.parse()?;
                let flow = match text.value().as_str() {
                    "wait" => "wait",
                    "drop_oldest" => "drop_oldest",
                    "drop_newest" => "drop_newest",
                    _ => {
                        let advice = "write one of \"wait\", \"drop_oldest\", \"drop_newest\"";
                        return Err(Error::new(text.span(), advice));
                    }
                };
                once(meta, &mut self.when_full, flow)
            }
            "buffer" if meta.input.peek(Token![=]) => {
                let items = count(meta)?;
                once(meta, &mut self.buffer, quote!(.buffer(#items)))
            }
            "buffer" => {
                let (mut min, mut max) = (None, None);
                meta.parse_nested_meta(|meta| {
                    match meta.path.get_ident().map(ToString::to_string).as_deref() {
                        Some("min") => once(&meta, &mut min, count(&meta)?),
                        Some("max") => once(&meta, &mut max, count(&meta)?),
                        _ => Err(meta.error("unknown setting; buffer(…) takes min and max")),
                    }
                })?;
                let example = "buffer(min = 16, max = 4096)";
                match (min, max) {
                    (Some(min), Some(max)) if min <= max => {
                        once(meta, &mut self.buffer, quote!(.buffer_between(#min, #max)))
                    }
                    (Some(_), Some(_)) => {
                        let advice = format!("the lower bound is above the upper one; write {example}");
                        Err(Error::new(meta.path.span(), advice))
                    }
                    _ => {
                        let advice =
                            format!("buffer(…) needs both bounds: {example}; or write `buffer = 1000`");
                        Err(Error::new(meta.path.span(), advice))
                    }
                }
            }
            "sample" => {
                let text: LitStr = meta.value()?.parse()?;
                once(meta, &mut self.sample, sample(&text)?)
            }
            "rate" => once(meta, &mut self.rate, count(meta)?),
            "batch" => once(meta, &mut self.batch, count(meta)?),
            _ => Err(meta.error(format!("unknown setting; #[on_stream(…)] takes {KEYS}"))),
        }
    }

    fn tokens(&self, quark: &TokenStream) -> TokenStream {
        let when_full = syn::Ident::new(self.when_full.unwrap_or("wait"), proc_macro2::Span::call_site());
        let (buffer, sample) = (&self.buffer, &self.sample);
        let rate = self.rate.map(|items| quote!(.per_second(#items)));
        let batch = self.batch.map(|items| quote!(.batch(#items)));
        quote!(#quark::Flow::#when_full() #buffer #sample #rate #batch)
    }
}

/// `"1 in 10"` or a time.
fn sample(text: &LitStr) -> Result<TokenStream> {
    let value = text.value();
    if let Some(number) = value.trim().strip_prefix("1 in ") {
        let number = number.trim().parse().ok().filter(|&number: &u32| number > 0);
        if let Some(number) = number {
            return Ok(quote!(.one_in(#number)));
        }
    }
    let time: Option<Duration> = parse_duration(&value).filter(|time| !time.is_zero());
    let advice = "a sample is \"1 in 10\" items, or one in each time such as \"100ms\"";
    let time = time.ok_or_else(|| Error::new(text.span(), advice))?;
    let time = duration_tokens(time);
    Ok(quote!(.sample_every(#time)))
}

/// A whole number from one up.
fn count(meta: &ParseNestedMeta<'_>) -> Result<u32> {
    let literal: LitInt = meta.value()?.parse()?;
    let count = literal.base10_parse().ok().filter(|&count: &u32| count > 0);
    count.ok_or_else(|| Error::new(literal.span(), "a whole number from 1 up"))
}

/// The same as `quark_runtime::streams` says of a constant's text, with the place in the attribute.
fn check_pattern(text: &LitStr) -> Result<()> {
    let value = text.value();
    let error = |advice| Err(Error::new(text.span(), advice));
    let last = value.split('/').count() - 1;
    for (index, segment) in value.split('/').enumerate() {
        match segment {
            "" => return error("a stream namespace looks like \"cameras/frames\""),
            "**" if index < last => {
                return error("two stars stand for the rest, so they come last: \"sensors/**\"");
            }
            "*" | "**" => {}
            other if other.contains('*') => {
                return error(
                    "a star stands for a whole segment: \"sensors/*\" for one, \"sensors/**\" for one or more",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a `Vec` is of, by its name.
fn of_vec(parameter: &Type) -> Option<&Type> {
    let Type::Path(path) = parameter else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Vec")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(item) => Some(item),
        _ => None,
    }
}
