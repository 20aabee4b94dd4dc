use quark::prelude::*;

#[derive(Actor)]
struct Keeper {
    #[state(format = "yaml")]
    count: State<u64>,
}

#[methods]
impl Keeper {}

fn main() {}
