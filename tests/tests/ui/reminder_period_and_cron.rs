use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report", every = "1h", cron = "0 * * * *")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
