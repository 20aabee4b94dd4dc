use quark::prelude::*;

#[derive(Actor)]
#[actor(breaker(failures = 5, after = "1s"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
