//! Every misuse of the macros has an error that says what to write instead.
//!
//! The fixtures stand in `ui/`, each with the compiler's answer beside it. After a wanted change of a message,
//! `TRYBUILD=overwrite cargo nextest run -p quark-tests --test macros` writes them anew: read them then.

#[test]
fn trybuild_every_misuse_has_an_error_that_says_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
