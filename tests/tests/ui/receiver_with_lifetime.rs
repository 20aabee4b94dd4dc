use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn label(&'static self) {}
}

fn main() {}
