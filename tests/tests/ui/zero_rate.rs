use quark::prelude::*;

#[derive(Actor)]
#[actor(rate_limit(per_second = 0))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
