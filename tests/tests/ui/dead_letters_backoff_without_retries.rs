use quark::prelude::*;

#[derive(Actor)]
#[actor(dead_letters(backoff = "100ms..30s"))]
struct Mailer;

#[methods]
impl Mailer {}

fn main() {}
