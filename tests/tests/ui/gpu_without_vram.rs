use quark::prelude::*;

#[derive(Actor)]
#[actor(gpu(numa = "local"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
