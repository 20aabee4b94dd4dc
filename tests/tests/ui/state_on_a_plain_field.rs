use quark::prelude::*;

#[derive(Actor)]
struct Keeper {
    #[state]
    count: u64,
}

#[methods]
impl Keeper {}

fn main() {}
