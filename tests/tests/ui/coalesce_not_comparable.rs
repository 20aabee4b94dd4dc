use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[coalesce]
    pub async fn zoom(&mut self, factor: f64) {
        let _ = factor;
    }
}

fn main() {}
