use quark::prelude::*;

#[derive(Actor)]
#[actor(workers(max = 0))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
