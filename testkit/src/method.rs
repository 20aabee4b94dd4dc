//! Naming a method of an actor's interface by its path, `CounterRef::add`, so that the compiler knows its types.

use quark::actor::{Actor, Message, Method};
use quark::runtime::coalesce::Coalesced;
use quark::{Call, SharedCall};

/// A method of the typed reference to actors of type `A`, as its path names it: `CounterRef::add`. `M` is its message
/// and `T` the tuple of its arguments; the compiler finds both, and `K`, the kind of call that the path makes.
#[diagnostic::on_unimplemented(
    message = "this is no method of `{A}`'s typed reference",
    label = "name one by its path, such as `CounterRef::add`"
)]
pub trait MethodPath<A: Actor, M: Method<A> + Message<T>, T, K>: Sized {}

/// Marks the paths of methods of which each call runs.
pub enum Single {}

/// Marks the paths of methods whose identical calls are joined.
pub enum Joined {}

macro_rules! paths {
    ($(($($argument:ident),*))*) => {$(
        impl<A, M, F, $($argument),*> MethodPath<A, M, ($($argument,)*), Single> for F
        where
            A: Actor,
            M: Method<A> + Message<($($argument,)*)>,
            F: for<'r> Fn(&'r A::Ref, $($argument),*) -> Call<'r, A, M>,
        {
        }

        impl<A, M, F, $($argument),*> MethodPath<A, M, ($($argument,)*), Joined> for F
        where
            A: Actor,
            M: Coalesced<A> + Message<($($argument,)*)>,
            F: for<'r> Fn(&'r A::Ref, $($argument),*) -> SharedCall<'r, A, M>,
        {
        }
    )*};
}

paths! {
    ()
    (P1)
    (P1, P2)
    (P1, P2, P3)
    (P1, P2, P3, P4)
    (P1, P2, P3, P4, P5)
    (P1, P2, P3, P4, P5, P6)
    (P1, P2, P3, P4, P5, P6, P7)
    (P1, P2, P3, P4, P5, P6, P7, P8)
}
