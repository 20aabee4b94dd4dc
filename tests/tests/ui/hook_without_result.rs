use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_activate]
    async fn load(&mut self) {}
}

fn main() {}
