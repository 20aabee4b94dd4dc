use quark::prelude::*;

#[derive(Actor)]
#[actor(gpu(vram = "2 GiB", numa = "near"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
