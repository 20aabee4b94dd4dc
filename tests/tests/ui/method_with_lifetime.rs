use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn label<'a>(&'a self) {}
}

fn main() {}
