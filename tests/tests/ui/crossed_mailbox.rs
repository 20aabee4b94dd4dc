use quark::prelude::*;

#[derive(Actor)]
#[actor(mailbox(min = 100, max = 10))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
