use quark::prelude::*;

#[derive(Actor)]
#[actor(idle = "1m", idle = "2m")]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
