//! `#[on_reminder("name")]`: a method that takes the ticks of a durable timer.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, ImplItemFn, LitStr, Result, Token, Visibility};

use super::{Found, Turn, demand_async, is_named};
use crate::attributes::{duration_tokens, parse_duration};

pub(super) const MARK: &str = "on_reminder";

/// The longest name, as the runtime has it.
const NAME_MAX: usize = 128;

/// What the attribute says, and which turn it stands on.
pub(super) struct Reminder {
    name: LitStr,
    schedule: Option<Schedule>,
    turn: usize,
}

enum Schedule {
    Every(Duration),
    Cron { line: LitStr, zone: Option<LitStr> },
}

struct Arguments {
    name: LitStr,
    schedule: Option<Schedule>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name: LitStr = input.parse().map_err(|error| {
            Error::new(error.span(), "write the reminder's name: #[on_reminder(\"daily-report\")]")
        })?;
        let (mut every, mut cron, mut zone) = (None, None, None);
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let value: LitStr = input.parse()?;
            let place = match key.to_string().as_str() {
                "every" => &mut every,
                "cron" => &mut cron,
                "zone" => &mut zone,
                _ => {
                    return Err(Error::new(
                        key.span(),
                        "unknown setting; #[on_reminder(…)] takes every, cron or zone",
                    ));
                }
            };
            if place.replace(value).is_some() {
                return Err(Error::new(key.span(), "this is set twice; leave one of them out"));
            }
        }
        let schedule = match (every, cron, zone) {
            (None, None, None) => None,
            (Some(every), None, None) => Some(Schedule::Every(period(&every)?)),
            (None, Some(line), zone) => {
                check_fields(&line)?;
                Some(Schedule::Cron { line, zone })
            }
            (Some(_), Some(cron), _) => {
                return Err(Error::new(
                    cron.span(),
                    "a reminder has a period or a cron line; leave one of them out",
                ));
            }
            (_, None, Some(zone)) => {
                return Err(Error::new(
                    zone.span(),
                    "only a cron line is read in a time zone; leave `zone` out, or write `cron`",
                ));
            }
        };
        Ok(Self { name, schedule })
    }
}

fn period(text: &LitStr) -> Result<Duration> {
    let period = parse_duration(&text.value()).filter(|period| *period >= Duration::from_secs(1));
    period.ok_or_else(|| {
        Error::new(text.span(), "a reminder's period is a second or more, such as \"30s\", \"10m\" or \"1h\"; for less there are timers")
    })
}

/// What shows at a glance. The rest of the line is read when a silo starts that hosts the type.
fn check_fields(line: &LitStr) -> Result<()> {
    let value = line.value();
    let fields = value.split_whitespace().count();
    if (5..=7).contains(&fields) || (fields == 1 && value.trim_start().starts_with('@')) {
        return Ok(());
    }
    let advice = "a cron line is minute, hour, day of month, month, day of week, such as \"0 8 * * *\"";
    Err(Error::new(line.span(), advice))
}

impl Found {
    /// Takes in a function with the mark.
    pub(super) fn take_reminder(
        &mut self,
        mark: &Attribute,
        function: &ImplItemFn,
        actor: &Ident,
    ) -> Result<()> {
        let Arguments { name, schedule } = match &mark.meta {
            syn::Meta::List(_) => mark.parse_args()?,
            _ => {
                return Err(Error::new_spanned(
                    mark,
                    "write the reminder's name: #[on_reminder(\"daily-report\")]",
                ));
            }
        };
        let length = name.value().len();
        if length == 0 || length > NAME_MAX {
            return Err(Error::new(name.span(), format!("a reminder's name has 1 to {NAME_MAX} bytes")));
        }
        if let Some(twin) = self.reminders.iter().find(|other| other.name.value() == name.value()) {
            let twin = &self.turns[twin.turn].name;
            return Err(Error::new(
                name.span(),
                format!("`{twin}` takes the ticks of this reminder already"),
            ));
        }
        demand_async(function, "a reminder's ticks are turns")?;
        let turn = Turn::read(function, actor, matches!(function.vis, Visibility::Public(_)))?;
        if !matches!(turn.parameters.as_slice(), [(_, tick)] if is_named(tick, "Tick")) {
            let advice = "an #[on_reminder] method takes `&mut self` or `&self`, `cx: &Cx` if it needs it, and \
                          `tick: Tick`";
            return Err(Error::new_spanned(&function.sig.inputs, advice));
        }
        self.reminders.push(Reminder { name, schedule, turn: self.turns.len() });
        self.turns.push(turn);
        Ok(())
    }

    /// The reminders' table, and the function that names their methods.
    pub(super) fn reminders(&self, quark: &TokenStream) -> TokenStream {
        if self.reminders.is_empty() {
            return TokenStream::new();
        }
        let specs = self.reminders.iter().map(|reminder| reminder.spec(&self.turns[reminder.turn], quark));
        let methods = self.reminders.iter().map(|reminder| {
            let (name, Turn { message, parameters, .. }) = (&reminder.name, &self.turns[reminder.turn]);
            let (tick, argument) = &parameters[0];
            // At the parameter's type, so that another type of this name is reported there.
            let take = quote_spanned!(argument.span() => |#tick: #quark::Tick| #message { #tick });
            quote!(methods.on::<#message>(#name, #take);)
        });
        quote! {
            const REMINDERS: &'static [#quark::ReminderSpec] = &[#(#specs),*];

            fn reminders(methods: &mut #quark::ReminderMethods<Self>) {
                #(#methods)*
            }
        }
    }
}

impl Reminder {
    fn spec(&self, turn: &Turn, quark: &TokenStream) -> TokenStream {
        let (name, method) = (&self.name, turn.name.to_string());
        let schedule = match &self.schedule {
            None => quote!(::core::option::Option::None),
            Some(Schedule::Every(period)) => {
                let period = duration_tokens(*period);
                quote!(::core::option::Option::Some(#quark::DeclaredSchedule::Every(#period)))
            }
            Some(Schedule::Cron { line, zone }) => {
                let zone = match zone {
                    Some(zone) => quote!(::core::option::Option::Some(#zone)),
                    None => quote!(::core::option::Option::None),
                };
                quote!(::core::option::Option::Some(#quark::DeclaredSchedule::Cron { line: #line, zone: #zone }))
            }
        };
        quote!(#quark::ReminderSpec { name: #name, method: #method, schedule: #schedule })
    }
}
