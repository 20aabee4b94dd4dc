use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn label(&self) -> &str {
        "camera"
    }
}

fn main() {}
