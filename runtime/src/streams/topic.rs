//! Topics: namespaces with the type that their items have, for publisher and subscriber to agree on.

use std::fmt;
use std::marker::PhantomData;

use super::pattern::{flaw, is_wild};

/// A namespace and the type of its items, as a constant that publishers and subscribers share:
/// `const FRAMES: Topic<Frame> = Topic::new("cameras/frames");`. So the compiler sees that they agree.
pub struct Topic<T> {
    namespace: &'static str,
    item: PhantomData<fn() -> T>,
}

/// The streams whose namespaces match a pattern, all of one item type:
/// `const SENSORS: Topics<Reading> = Topics::matching("sensors/*");`. They can be subscribed to; to publish, name one
/// with a [`Topic`].
///
/// `*` stands for any one segment of a namespace; `**`, which comes last, for one segment or more.
pub struct Topics<T> {
    pattern: &'static str,
    item: PhantomData<fn() -> T>,
}

/// What can be subscribed to: a [`Topic`] or several [`Topics`].
pub trait Source {
    /// The type of the items.
    type Item;

    /// Which namespaces it is about.
    fn pattern(&self) -> &'static str;
}

impl<T> Topic<T> {
    /// The topic of this namespace.
    ///
    /// # Panics
    /// When the namespace is empty, begins or ends with a slash, or has a star; for a constant, that is an error of the
    /// compiler.
    pub const fn new(namespace: &'static str) -> Self {
        if let Some(flaw) = flaw(namespace) {
            panic!("{}", flaw.advice());
        }
        assert!(!is_wild(namespace), "a topic is one namespace; write Topics::matching(…) for a pattern");
        Self { namespace, item: PhantomData }
    }

    /// Its namespace.
    pub const fn namespace(&self) -> &'static str {
        self.namespace
    }
}

impl<T> Topics<T> {
    /// The topics whose namespaces match the pattern.
    ///
    /// # Panics
    /// When the pattern has an empty segment, a star beside other characters, or two stars before its end; for a
    /// constant, that is an error of the compiler.
    pub const fn matching(pattern: &'static str) -> Self {
        if let Some(flaw) = flaw(pattern) {
            panic!("{}", flaw.advice());
        }
        Self { pattern, item: PhantomData }
    }
}

impl<T> Source for Topic<T> {
    type Item = T;

    fn pattern(&self) -> &'static str {
        self.namespace
    }
}

impl<T> Source for Topics<T> {
    type Item = T;

    fn pattern(&self) -> &'static str {
        self.pattern
    }
}

impl<S: Source> Source for &S {
    type Item = S::Item;

    fn pattern(&self) -> &'static str {
        (**self).pattern()
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Topic<T> {}

impl<T> Clone for Topics<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Topics<T> {}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.namespace).finish()
    }
}

impl<T> fmt::Debug for Topics<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topics").field(&self.pattern).finish()
    }
}
