//! Reading `#[state(…)]` and `#[journal(…)]` on an actor's fields.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Fields, LitInt, LitStr, Meta, Result};

use super::{check_name, duration, duration_tokens, once, parse_bytes};

/// The stored fields of an actor.
pub(crate) struct Parts(Vec<Part>);

/// One of them.
struct Part {
    field: syn::Member,
    field_type: syn::Type,
    name: String,
    is_journal: bool,
    settings: Settings,
}

/// What its attribute says.
#[derive(Default)]
struct Settings {
    name: Option<LitStr>,
    store: Option<LitStr>,
    format: Option<TokenStream>,
    max_bytes: Option<u64>,
    write_behind: Option<Duration>,
    snapshot_every: Option<u32>,
}

impl Parts {
    pub(crate) fn read(fields: &Fields) -> Result<Self> {
        let mut parts: Vec<Part> = Vec::new();
        for (field, member) in fields.iter().zip(fields.members()) {
            let Some(part) = Part::read(field, member)? else { continue };
            if let Some(twin) = parts.iter().find(|other| other.name == part.name) {
                let advice =
                    format!("another field is stored as {:?}; give one of them `name = …`", twin.name);
                return Err(Error::new_spanned(field, advice));
            }
            parts.push(part);
        }
        Ok(Self(parts))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items of `impl Actor` that tell of them.
    pub(crate) fn tokens(&self, quark: &TokenStream) -> TokenStream {
        if self.is_empty() {
            return TokenStream::new();
        }
        let specs = self.0.iter().map(|part| part.spec(quark));
        let fields = self.0.iter().enumerate().map(|(index, part)| {
            let (field, kind) = (&part.field, if part.is_journal { quote!(Journal) } else { quote!(State) });
            let call = if part.is_journal { quote!(journal) } else { quote!(state) };
            // At the field's type, so that a value which cannot be stored is reported there.
            quote_spanned! { part.field_type.span() =>
                if let #quark::PartSpec::#kind(spec) = Self::PARTS[#index] {
                    kept.#call(&mut self.#field, spec);
                }
            }
        });
        quote! {
            const PARTS: &'static [#quark::PartSpec] = &[#(#specs),*];

            fn kept(&mut self) -> #quark::Kept<'_> {
                let mut kept = <#quark::Kept<'_> as ::core::default::Default>::default();
                #(#fields)*
                kept
            }
        }
    }
}

impl Part {
    fn read(field: &Field, member: syn::Member) -> Result<Option<Self>> {
        let marks: Vec<&Attribute> = field
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("state") || attribute.path().is_ident("journal"))
            .collect();
        let mark = match marks.as_slice() {
            [] => return Ok(None),
            [mark] => *mark,
            [_, second, ..] => return Err(Error::new_spanned(second, "a field is one of state and journal")),
        };
        let is_journal = mark.path().is_ident("journal");
        let mut settings = Settings::default();
        if !matches!(mark.meta, Meta::Path(_)) {
            mark.parse_nested_meta(|meta| settings.take(&meta, is_journal))?;
        }
        let (kind, example) =
            if is_journal { ("Journal", "Journal<Account>") } else { ("State", "State<Calibration>") };
        if !is_named(&field.ty, kind) {
            let attribute = if is_journal { "journal" } else { "state" };
            let advice = format!("a field with #[{attribute}] is a `{kind}<…>`, such as `{example}`");
            return Err(Error::new_spanned(&field.ty, advice));
        }
        let name = match (&settings.name, &member) {
            (Some(name), _) => name.value(),
            (None, syn::Member::Named(name)) => name.to_string().trim_start_matches("r#").to_owned(),
            (None, syn::Member::Unnamed(_)) => {
                let advice = "a field without a name needs one in its store: `name = \"calibration\"`";
                return Err(Error::new_spanned(mark, advice));
            }
        };
        Ok(Some(Self { field: member, field_type: field.ty.clone(), name, is_journal, settings }))
    }

    fn spec(&self, quark: &TokenStream) -> TokenStream {
        let Settings { store, format, max_bytes, write_behind, snapshot_every, .. } = &self.settings;
        let mut settings = TokenStream::new();
        settings.extend(store.as_ref().map(|store| quote!(store: #store,)));
        settings.extend(format.as_ref().map(|format| quote!(format: #quark::Format::#format,)));
        settings.extend(max_bytes.map(|bytes| quote!(max: #quark::ByteSize::bytes(#bytes),)));
        settings.extend(write_behind.map(|delay| {
            let delay = duration_tokens(delay);
            quote!(write_behind: ::core::option::Option::Some(#delay),)
        }));
        settings.extend(snapshot_every.map(|every| quote!(snapshot_every: #every,)));
        let (variant, spec) = if self.is_journal {
            (quote!(Journal), quote!(JournalSpec))
        } else {
            (quote!(State), quote!(StateSpec))
        };
        let name = &self.name;
        if settings.is_empty() {
            return quote!(#quark::PartSpec::#variant(#quark::#spec::new(#name)));
        }
        quote!(#quark::PartSpec::#variant(#quark::#spec { #settings ..#quark::#spec::new(#name) }))
    }
}

impl Settings {
    fn take(&mut self, meta: &ParseNestedMeta<'_>, is_journal: bool) -> Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match (key.as_str(), is_journal) {
            ("name", _) => {
                let name: LitStr = meta.value()?.parse()?;
                check_name(&name)?;
                once(meta, &mut self.name, name)
            }
            ("store", _) => {
                let name: LitStr = meta.value()?.parse()?;
                check_name(&name)?;
                once(meta, &mut self.store, name)
            }
            ("format", _) => {
                let text: LitStr = meta.value()?.parse()?;
                let format = match text.value().as_str() {
                    "json" => quote!(Json),
                    "binary" => quote!(Binary),
                    _ => return Err(Error::new(text.span(), "a format is \"json\" or \"binary\"")),
                };
                once(meta, &mut self.format, format)
            }
            ("max", _) => {
                let text: LitStr = meta.value()?.parse()?;
                let bytes = parse_bytes(&text.value()).filter(|&bytes| bytes > 0).ok_or_else(|| {
                    Error::new(text.span(), "an amount of memory looks like \"64 KiB\" or \"8 MiB\"")
                })?;
                once(meta, &mut self.max_bytes, bytes)
            }
            ("write_behind", false) => once(meta, &mut self.write_behind, duration(meta)?),
            ("snapshot_every", true) => {
                let literal: LitInt = meta.value()?.parse()?;
                once(meta, &mut self.snapshot_every, literal.base10_parse()?)
            }
            (_, false) => {
                Err(meta.error("unknown setting; #[state(…)] takes name, store, format, max or write_behind"))
            }
            (_, true) => {
                Err(meta
                    .error("unknown setting; #[journal(…)] takes name, store, format, max or snapshot_every"))
            }
        }
    }
}

/// Whether the type goes by this name, under whatever path.
fn is_named(field: &syn::Type, name: &str) -> bool {
    let syn::Type::Path(path) = field else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == name)
}
