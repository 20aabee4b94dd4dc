use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn frames(&self) -> impl Iterator<Item = u64> {
        0..3
    }
}

fn main() {}
