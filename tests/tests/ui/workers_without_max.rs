use quark::prelude::*;

#[derive(Actor)]
#[actor(workers)]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
