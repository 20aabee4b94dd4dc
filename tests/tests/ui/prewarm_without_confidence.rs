use quark::prelude::*;

#[derive(Actor)]
#[actor(prewarm(stream = "sensors/motion", lead = "200ms"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
