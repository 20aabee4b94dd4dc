use quark::prelude::*;

#[derive(Actor)]
#[actor(supervise(retries = 3))]
struct Boss;

#[methods]
impl Boss {}

fn main() {}
