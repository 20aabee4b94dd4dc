use quark::prelude::*;

#[derive(Actor)]
#[actor(nmae = "camera")]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
