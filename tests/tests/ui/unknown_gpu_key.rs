use quark::prelude::*;

#[derive(Actor)]
#[actor(gpu(vram = "2 GiB", cores = 4))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
