use quark::prelude::*;

#[derive(Stored)]
struct Pair<T>(T, T);

fn main() {}
