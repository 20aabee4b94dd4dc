use quark::prelude::*;

#[derive(Actor)]
struct Camera {
    #[init]
    frames: u64,
}

fn main() {}
