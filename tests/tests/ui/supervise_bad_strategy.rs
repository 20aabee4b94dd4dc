use quark::prelude::*;

#[derive(Actor)]
#[actor(supervise(strategy = "one_for_all"))]
struct Boss;

#[methods]
impl Boss {}

fn main() {}
