//! The `holdfast-verifier` command.
fn main() {}
