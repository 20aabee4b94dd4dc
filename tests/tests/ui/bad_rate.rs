use quark::prelude::*;

#[derive(Actor)]
#[actor(rate_limit(burst = 20))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
