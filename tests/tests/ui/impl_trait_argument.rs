use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn label(&mut self, text: impl Into<String>) {
        let _ = text;
    }
}

fn main() {}
