use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report", every = "1h", zone = "Europe/Berlin")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
