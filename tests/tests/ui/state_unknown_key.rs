use quark::prelude::*;

#[derive(Actor)]
struct Keeper {
    #[state(snapshot_every = 10)]
    count: State<u64>,
}

#[methods]
impl Keeper {}

fn main() {}
