use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report")]
    async fn report(&mut self, _tick: Tick) {}

    #[on_reminder("report")]
    async fn report_again(&mut self, _tick: Tick) {}
}

fn main() {}
