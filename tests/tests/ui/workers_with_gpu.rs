use quark::prelude::*;

#[derive(Actor)]
#[actor(workers(max = 8), gpu(vram = "1 GiB"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
