use quark::prelude::*;

#[derive(Actor)]
#[actor(breaker(within = "10s"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
