use quark::prelude::*;

#[derive(Actor)]
#[actor(workers(min = 1))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
