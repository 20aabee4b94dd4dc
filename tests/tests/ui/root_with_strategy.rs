use quark::prelude::*;

#[derive(Actor)]
#[actor(root(strategy = "all_for_one"))]
struct Boss;

#[methods]
impl Boss {}

fn main() {}
