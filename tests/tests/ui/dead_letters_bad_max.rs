use quark::prelude::*;

#[derive(Actor)]
#[actor(dead_letters(max = 0))]
struct Mailer;

#[methods]
impl Mailer {}

fn main() {}
