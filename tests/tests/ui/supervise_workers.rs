use quark::prelude::*;

#[derive(Actor)]
#[actor(workers(max = 4), supervise(max_restarts = 3))]
struct Resizer;

#[methods]
impl Resizer {}

fn main() {}
