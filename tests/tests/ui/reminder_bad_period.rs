use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report", every = "10ms")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
