use quark::prelude::*;

#[derive(Actor)]
#[actor(mailbox(max = 10))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
