use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn label(&mut self, text: &str) {
        let _ = text;
    }
}

fn main() {}
