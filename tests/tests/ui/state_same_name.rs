use quark::prelude::*;

#[derive(Actor)]
struct Keeper {
    #[state]
    count: State<u64>,
    #[state(name = "count")]
    other: State<u64>,
}

#[methods]
impl Keeper {}

fn main() {}
