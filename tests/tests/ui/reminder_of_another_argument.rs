use quark::prelude::*;

#[derive(Actor)]
struct Clerk;

#[methods]
impl Clerk {
    #[on_reminder("report")]
    async fn report(&mut self, _number: u64) {}
}

fn main() {}
