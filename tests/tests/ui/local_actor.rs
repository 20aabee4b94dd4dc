use quark::prelude::*;

#[derive(Actor)]
#[actor(local)]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
