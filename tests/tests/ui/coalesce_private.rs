use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[coalesce]
    async fn frame(&mut self, number: u64) -> u64 {
        number
    }
}

fn main() {}
