use quark::prelude::*;

#[derive(Actor)]
struct Camera<T> {
    last: T,
}

fn main() {}
