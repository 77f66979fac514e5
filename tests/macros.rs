//! The macros: what they take without a warning, and what they say about wrong use.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test --test macros`, and read the difference.

#[test]
fn right_use_compiles_and_wrong_use_says_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/macros/pass/*.rs");
    cases.compile_fail("tests/macros/fail/*.rs");
}
