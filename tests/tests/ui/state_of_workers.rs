use quark::prelude::*;

#[derive(Actor)]
#[actor(workers(max = 4))]
struct Keeper {
    #[state]
    count: State<u64>,
}

#[methods]
impl Keeper {}

fn main() {}
