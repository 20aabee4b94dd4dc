use quark::prelude::*;

#[derive(Actor)]
#[actor(gpu(vram = "2 gigs"))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
