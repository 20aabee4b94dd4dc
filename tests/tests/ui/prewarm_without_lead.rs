use quark::prelude::*;

#[derive(Actor)]
#[actor(prewarm(stream = "sensors/motion", confidence = 0.8))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
