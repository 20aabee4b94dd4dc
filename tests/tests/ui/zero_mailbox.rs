use quark::prelude::*;

#[derive(Actor)]
#[actor(mailbox = 0)]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
