//! Namespace patterns: which streams a subscription is about.
//!
//! A namespace is segments with slashes between them. A pattern is a namespace whose segments may be `*`, which stands
//! for any one segment, and whose last one may be `**`, which stands for one segment or more.

use std::fmt;

/// What is wrong with the text of a namespace or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A segment without a character, at either end or between two slashes.
    EmptySegment,
    /// A star beside other characters of its segment.
    StarInSegment,
    /// Two stars before the end.
    RestBeforeEnd,
}

impl Flaw {
    /// What to write instead. The macros say the same.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::EmptySegment => "a stream namespace looks like \"cameras/frames\"",
            Self::StarInSegment => {
                "a star stands for a whole segment: \"sensors/*\" for one, \"sensors/**\" for one or more"
            }
            Self::RestBeforeEnd => "two stars stand for the rest, so they come last: \"sensors/**\"",
        }
    }
}

/// Looks for what is wrong. Also runs in the compiler, for constants.
pub(crate) const fn flaw(text: &str) -> Option<Flaw> {
    let bytes = text.as_bytes();
    let (mut at, mut begin) = (0, 0);
    while at <= bytes.len() {
        if at < bytes.len() && bytes[at] != b'/' {
            at += 1;
            continue;
        }
        let length = at - begin;
        if length == 0 {
            return Some(Flaw::EmptySegment);
        }
        let (mut stars, mut look) = (0, begin);
        while look < at {
            if bytes[look] == b'*' {
                stars += 1;
            }
            look += 1;
        }
        if stars > 0 && (stars != length || stars > 2) {
            return Some(Flaw::StarInSegment);
        }
        if stars == 2 && at < bytes.len() {
            return Some(Flaw::RestBeforeEnd);
        }
        begin = at + 1;
        at += 1;
    }
    None
}

/// Whether the text has stars.
pub(crate) const fn is_wild(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'*' {
            return true;
        }
        at += 1;
    }
    false
}

/// A pattern without flaws.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pattern(&'static str);

impl Pattern {
    /// The caller has looked for flaws.
    pub(crate) const fn unchecked(text: &'static str) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether it is about one namespace only.
    pub(crate) fn is_exact(self) -> bool {
        !is_wild(self.0)
    }

    /// Whether it is about this namespace.
    pub(crate) fn matches(self, namespace: &str) -> bool {
        if self.is_exact() {
            return self.0 == namespace;
        }
        let (mut own, mut others) = (self.0.split('/'), namespace.split('/'));
        loop {
            match (own.next(), others.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some(own), Some(other)) if own == "*" || own == other => {}
                _ => return false,
            }
        }
    }

    /// Whether some namespace is matched by both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let (mut left, mut right) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) | (Some(_), Some("**")) => return true,
                (Some(left), Some(right)) if left == "*" || right == "*" || left == right => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        let matches = |pattern, namespace| Pattern(pattern).matches(namespace);
        assert!(matches("a/b", "a/b") && !matches("a/b", "a/b/c") && !matches("a/b", "a"));
        assert!(matches("a/*", "a/b") && !matches("a/*", "a") && !matches("a/*", "a/b/c"));
        assert!(matches("*/b", "a/b") && !matches("*/b", "a/c"));
        assert!(matches("a/**", "a/b") && matches("a/**", "a/b/c/d") && !matches("a/**", "a"));
        assert!(matches("**", "a") && matches("**", "a/b"));
        assert!(matches("a/*/c/**", "a/b/c/d/e") && !matches("a/*/c/**", "a/b/c"));
    }

    #[test]
    fn flawed_patterns_are_told_apart() {
        for text in ["a", "a/b", "*", "**", "a/*", "*/a", "a/*/b", "a/**", "*/**"] {
            assert_eq!(flaw(text), None, "{text}");
        }
        for text in ["", "/", "/a", "a/", "a//b", "*/"] {
            assert_eq!(flaw(text), Some(Flaw::EmptySegment), "{text}");
        }
        for text in ["a*", "*a", "a/b*c", "***", "a/***"] {
            assert_eq!(flaw(text), Some(Flaw::StarInSegment), "{text}");
        }
        assert_eq!(flaw("a/**/b"), Some(Flaw::RestBeforeEnd));
    }

    fn pattern() -> impl Strategy<Value = &'static str> {
        let segment = prop::sample::select(vec!["a", "b", "*"]);
        (prop::collection::vec(segment, 0..3), any::<bool>()).prop_filter_map("empty", |(mut parts, rest)| {
            if rest {
                parts.push("**");
            }
            // As many as the segments allow: a few dozen.
            (!parts.is_empty()).then(|| &*parts.join("/").leak())
        })
    }

    proptest! {
        #[test]
        fn patterns_overlap_where_a_namespace_matches_both(left in pattern(), right in pattern()) {
            let (left, right) = (Pattern(left), Pattern(right));
            // Three segments and one more say all that patterns of three can tell apart.
            let names: Vec<String> = (1..=4_u32)
                .flat_map(|length| (0..3_u32.pow(length)).map(move |code| (length, code)))
                .map(|(length, code)| {
                    let parts: Vec<_> =
                        (0..length).map(|at| ["a", "b", "c"][(code / 3_u32.pow(at) % 3) as usize]).collect();
                    parts.join("/")
                })
                .collect();
            let both = names.iter().any(|name| left.matches(name) && right.matches(name));
            prop_assert_eq!(left.overlaps(right), both);
            prop_assert_eq!(right.overlaps(left), both);
        }
    }
}
