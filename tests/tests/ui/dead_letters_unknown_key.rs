use quark::prelude::*;

#[derive(Actor)]
#[actor(dead_letters(maximum = 3))]
struct Mailer;

#[methods]
impl Mailer {}

fn main() {}
