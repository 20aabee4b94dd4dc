use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report", cron = "at eight")]
    async fn report(&mut self, _tick: Tick) {}
}

fn main() {}
