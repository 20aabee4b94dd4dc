use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn store<T: Send>(&mut self, item: T) {
        let _ = item;
    }
}

fn main() {}
