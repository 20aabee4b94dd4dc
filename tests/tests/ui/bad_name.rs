use quark::prelude::*;

#[derive(Actor)]
#[actor(name = "my camera")]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
