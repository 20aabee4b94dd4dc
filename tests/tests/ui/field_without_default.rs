use quark::prelude::*;

struct Lens;

#[derive(Actor)]
struct Camera {
    lens: Lens,
}

#[methods]
impl Camera {}

fn main() {}
