use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
