use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report", daily = "08:00")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
