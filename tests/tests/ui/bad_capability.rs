use quark::prelude::*;

#[derive(Actor)]
#[actor(gpu(vram = "2 GiB", capability = "eight"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
