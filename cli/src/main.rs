//! `baton`: the one binary.
fn main() {}
