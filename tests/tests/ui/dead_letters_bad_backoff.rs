use quark::prelude::*;

#[derive(Actor)]
#[actor(dead_letters(retries = 3, backoff = "30s..100ms"))]
struct Mailer;

#[methods]
impl Mailer {}

fn main() {}
