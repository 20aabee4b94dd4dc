use quark::prelude::*;

#[derive(Actor)]
#[actor(supervise(on_activation = "resume"))]
struct Boss;

#[methods]
impl Boss {}

fn main() {}
