use quark::prelude::*;

#[derive(Actor)]
#[actor(prewarm(stream = "sensors/motion", lead = "200ms", confidence = 80))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
