//! What the fields of a message can do, found out where the macros name their types: which of them are `Clone`,
//! and which are `Debug`.
//!
//! A method of the type itself is preferred to one of a trait, and is there only where its bounds hold; so the
//! same expression copies a field that can be copied, and says `None` of one that cannot.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

/// Whether a `T` can be copied: `IsCopied::<T>::VALUE`, with [`NotCopied`] in scope.
#[derive(Debug)]
pub struct IsCopied<T>(PhantomData<T>);

impl<T: Clone> IsCopied<T> {
    /// It can.
    pub const VALUE: bool = true;
}

/// The answer for types without `Clone`.
pub trait NotCopied {
    /// It cannot.
    const VALUE: bool = false;
}

impl<T> NotCopied for IsCopied<T> {}

/// Copies a field, with [`CannotCopy`] in scope.
#[derive(Debug)]
pub struct Copies<'a, T>(pub &'a T);

impl<T: Clone> Copies<'_, T> {
    /// The copy.
    pub fn copy(&self) -> Option<T> {
        Some(self.0.clone())
    }
}

/// The answer for types without `Clone`.
pub trait CannotCopy<T> {
    /// There is no copy.
    fn copy(&self) -> Option<T> {
        None
    }
}

impl<T> CannotCopy<T> for Copies<'_, T> {}

/// Shows a field or an error, with [`CannotShow`] in scope.
#[derive(Debug)]
pub struct Shown<'a, T>(pub &'a T);

impl<T: Debug> Shown<'_, T> {
    /// Its `Debug` text.
    pub fn text(&self) -> &dyn Debug {
        self.0
    }
}

/// The answer for types without `Debug`.
pub trait CannotShow {
    /// A stand-in.
    fn text(&self) -> &dyn Debug {
        &Hidden
    }
}

/// What is shown of something that is not `Debug`.
struct Hidden;

impl Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<T> CannotShow for Shown<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    #[test]
    fn a_field_is_copied_and_shown_where_it_can_be() {
        const { assert!(IsCopied::<u32>::VALUE && !IsCopied::<Plain>::VALUE) };
        assert_eq!(Copies(&7).copy(), Some(7));
        assert!(Copies(&Plain).copy().is_none());
        assert_eq!(format!("{:?} {:?}", Shown(&7).text(), Shown(&Plain).text()), "7 …");
    }
}
