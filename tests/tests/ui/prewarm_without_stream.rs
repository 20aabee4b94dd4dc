use quark::prelude::*;

#[derive(Actor)]
#[actor(prewarm(lead = "200ms", confidence = 0.8))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
