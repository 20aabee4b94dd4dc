use quark::prelude::*;

#[derive(Actor)]
#[actor(mailbox = 100, mailbox(min = 10, max = 100))]
struct Camera;

#[methods]
impl Camera {}

fn main() {}
