use quark::prelude::*;

#[derive(Actor)]
#[actor(prewarm(stream = "sensors/motion", lead = "200ms", confidence = 0.8, budget = 3))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
