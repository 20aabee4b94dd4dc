use quark::prelude::*;

#[derive(Actor)]
#[actor(idle = "10 weeks")]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
