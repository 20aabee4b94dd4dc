use quark::prelude::*;

#[derive(Actor)]
#[actor(overflow = "block")]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
