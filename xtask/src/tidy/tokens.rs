//! Rules that look at a Rust file's tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr as _;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::Violation;

/// Folders and files that decide and must stay pure: every file whose path begins so.
const PURE: [&str; 4] = ["base/src/", "placement/src/", "predictive/src/", "devices/src/ledger"];

/// The one file in the pure folders that may read a clock: it is the clock.
const CLOCK: &str = "base/src/time.rs";

/// Macros that print.
const PRINTING: [&str; 4] = ["print", "println", "eprint", "eprintln"];

/// Macros that mark unfinished work.
const LEFTOVER: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Macros whose arguments are code that somebody else will compile: a `cfg` there isn't ours.
const QUOTING: [&str; 4] = ["quote", "quote_spanned", "parse_quote", "parse_quote_spanned"];

/// What a file is, as far as the rules differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// It decides: no clock, no tokio, no statics.
    pub(super) pure: bool,
    /// It is the clock of the pure crates.
    pub(super) clock: bool,
    /// It is part of a library.
    pub(super) library: bool,
}

impl Place {
    pub(super) fn of(root: &Path, file: &str) -> Self {
        Self {
            pure: PURE.iter().any(|place| file.starts_with(place)),
            clock: file == CLOCK,
            library: is_library(root, file),
        }
    }
}

/// A file below the `src` of a package with a `lib.rs`, but for its programs.
fn is_library(root: &Path, file: &str) -> bool {
    let Some((package, inside)) = file.split_once("/src/") else { return false };
    let program = inside == "main.rs" || inside.starts_with("bin/");
    !program && root.join(package).join("src/lib.rs").exists()
}

/// The files in which `unsafe` may stand: one path a line, and after `#` why.
#[derive(Debug, Default)]
pub(super) struct UnsafeList(BTreeMap<String, usize>);

impl UnsafeList {
    pub(super) fn parse(text: &str) -> Self {
        let lines = (1..)
            .zip(text.lines())
            .map(|(number, line)| (line.split('#').next().unwrap_or("").trim(), number));
        Self(
            lines
                .filter(|(path, _)| !path.is_empty())
                .map(|(path, number)| (path.to_owned(), number))
                .collect(),
        )
    }

    /// Entries, with their lines, for files that have no `unsafe`.
    pub(super) fn stale<'a>(&'a self, with_unsafe: &BTreeSet<String>) -> Vec<(usize, &'a str)> {
        let stale = self.0.iter().filter(|(file, _)| !with_unsafe.contains(*file));
        stale.map(|(file, line)| (*line, file.as_str())).collect()
    }
}

/// Checks one file and says whether it has `unsafe`.
pub(super) fn check(
    file: &str,
    source: &str,
    place: Place,
    unsafe_files: &UnsafeList,
    violations: &mut Vec<Violation>,
) -> bool {
    let stream = match TokenStream::from_str(source) {
        Ok(stream) => stream,
        Err(error) => {
            let line = error.span().start().line;
            violations.push(Violation::new(file, line, "lex", format!("this is no Rust: {error}")));
            return false;
        }
    };
    let mut walk = Walk { file, place, unsafe_lines: Vec::new(), violations };
    walk.tokens(stream, Context::default());
    let unsafe_lines = walk.unsafe_lines;
    // One line a file: either the file belongs on the list, or all of its `unsafe` must go.
    if let (Some(first), false) = (unsafe_lines.first(), unsafe_files.0.contains_key(file)) {
        let count = unsafe_lines.len();
        let text = format!("`unsafe` ({count} times) outside of the files in {}", super::UNSAFE_LIST);
        violations.push(Violation::new(file, *first, "unsafe", text));
    }
    !unsafe_lines.is_empty()
}

/// Where in a file the walk is.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    /// In an item under `#[cfg(test)]`.
    test: bool,
    /// In a function's body.
    body: bool,
}

struct Walk<'a> {
    file: &'a str,
    place: Place,
    /// Lines on which the word `unsafe` stands.
    unsafe_lines: Vec<usize>,
    violations: &'a mut Vec<Violation>,
}

impl Walk<'_> {
    fn tokens(&mut self, stream: TokenStream, context: Context) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        // The item that an attribute or `fn` has announced lasts up to its braces or its semicolon.
        let (mut test_item, mut function) = (false, false);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at..];
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some((attribute, len)) = attribute(rest) {
                        test_item |= is_cfg_test(attribute);
                        self.attribute(attribute, context);
                        self.tokens(
                            attribute.stream(),
                            Context { test: context.test || test_item, ..context },
                        );
                        at += len;
                        continue;
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => (test_item, function) = (false, false),
                TokenTree::Group(group) => {
                    let braces = group.delimiter() == Delimiter::Brace;
                    let body = context.body || (function && braces);
                    self.tokens(group.stream(), Context { test: context.test || test_item, body });
                    if braces {
                        (test_item, function) = (false, false);
                    }
                }
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    let context = Context { test: context.test || test_item, ..context };
                    let lifetime = at > 0 && is_punct(&tokens[at - 1], '\'');
                    if !lifetime {
                        // A name must follow: `fn(u8)` is a type.
                        function |= name == "fn" && matches!(rest.get(1), Some(TokenTree::Ident(_)));
                        self.ident(&name, rest, context);
                        if let Some(skip) = self.macro_call(&name, rest, context) {
                            at += skip;
                            continue;
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn ident(&mut self, name: &str, rest: &[TokenTree], context: Context) {
        let line = rest[0].span().start().line;
        match name {
            "unsafe" => self.unsafe_lines.push(line),
            "static" if is_ident(rest.get(1), "mut") => {
                self.report(line, "static", "`static mut` is global state that races".into());
            }
            _ => {}
        }
        if !self.place.pure || context.test {
            return;
        }
        let called_now = is_path(rest, "now");
        let why = match name {
            "Instant" | "SystemTime" if called_now && !self.place.clock => {
                "a clock: take `now` as an argument"
            }
            "tokio" if is_path_start(rest) => "tokio: deciding code is plain functions",
            "static" => "a static: two silos in one process share nothing",
            "thread_local" | "lazy_static" if is_macro(rest) => {
                "global state: two silos in one process share nothing"
            }
            _ => return,
        };
        self.report(line, "pure", format!("`{name}` in a pure module is {why}"));
    }

    /// Looks at `name!(…)`. Answers how many tokens to skip if its arguments are none of our business.
    fn macro_call(&mut self, name: &str, rest: &[TokenTree], context: Context) -> Option<usize> {
        if !is_macro(rest) {
            return None;
        }
        let line = rest[0].span().start().line;
        if LEFTOVER.contains(&name) {
            self.report(line, "leftover", format!("`{name}!` is unfinished work"));
        }
        if PRINTING.contains(&name) && self.place.library && !context.test {
            self.report(line, "print", format!("`{name}!` in a library: return it, or use tracing"));
        }
        if name == "cfg" && context.body {
            self.report(line, "cfg", "`cfg!` inside a function: let a cfg choose a module".into());
        }
        if let Some(TokenTree::Group(arguments)) = rest.get(2)
            && QUOTING.contains(&name)
        {
            // Generated code: nothing but `unsafe` matters there.
            let has_unsafe = contains(arguments.stream(), "unsafe");
            if has_unsafe {
                self.ident("unsafe", rest, context);
            }
            return Some(3);
        }
        None
    }

    fn attribute(&mut self, attribute: &Group, context: Context) {
        let first = attribute.stream().into_iter().next();
        let is_cfg = is_ident(first.as_ref(), "cfg") || is_ident(first.as_ref(), "cfg_attr");
        if context.body && is_cfg {
            let line = attribute.span_open().start().line;
            self.report(line, "cfg", "`cfg` inside a function: let a cfg choose a module".into());
        }
    }

    fn report(&mut self, line: usize, rule: &'static str, text: String) {
        self.violations.push(Violation::new(self.file, line, rule, text));
    }
}

/// The bracket group of `#[…]` or `#![…]` at the head of `rest`, and how many tokens it is.
fn attribute(rest: &[TokenTree]) -> Option<(&Group, usize)> {
    let at = if rest.get(1).is_some_and(|token| is_punct(token, '!')) { 2 } else { 1 };
    match rest.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some((group, at + 1)),
        _ => None,
    }
}

/// Exactly `cfg(test)`; `cfg(not(test))` and `cfg(any(test, …))` are code that also runs otherwise.
fn is_cfg_test(attribute: &Group) -> bool {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    matches!(&tokens[..], [name, TokenTree::Group(of)] if is_ident(Some(name), "cfg") && of.stream().to_string() == "test")
}

fn is_punct(token: &TokenTree, punct: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punct)
}

fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(found)) if found == name)
}

/// `name ! (…)`, and not `name != …`.
fn is_macro(rest: &[TokenTree]) -> bool {
    let bang = matches!(rest.get(1), Some(TokenTree::Punct(p)) if p.as_char() == '!' && p.spacing() == Spacing::Alone);
    bang && matches!(rest.get(2), Some(TokenTree::Group(_)))
}

/// `name ::` at the head of `rest`.
fn is_path_start(rest: &[TokenTree]) -> bool {
    rest.get(1).is_some_and(|token| is_punct(token, ':'))
        && rest.get(2).is_some_and(|token| is_punct(token, ':'))
}

/// `name :: next` at the head of `rest`.
fn is_path(rest: &[TokenTree], next: &str) -> bool {
    is_path_start(rest) && is_ident(rest.get(3), next)
}

/// Whether a word stands anywhere in these tokens.
fn contains(stream: TokenStream, word: &str) -> bool {
    stream.into_iter().any(|token| match token {
        TokenTree::Group(group) => contains(group.stream(), word),
        token => is_ident(Some(&token), word),
    })
}

#[cfg(test)]
mod tests;
