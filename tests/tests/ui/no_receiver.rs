use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn open(path: String) {
        let _ = path;
    }
}

fn main() {}
