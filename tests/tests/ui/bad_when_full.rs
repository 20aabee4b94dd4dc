use quark::prelude::*;

#[derive(Actor)]
#[actor(rate_limit(per_second = 10, when_full = "wait"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
