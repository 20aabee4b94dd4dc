use quark::prelude::*;

#[derive(Actor)]
enum Camera {
    On,
    Off,
}

fn main() {}
