use quark::prelude::*;

struct Frame;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[coalesce]
    pub async fn frame(&mut self, number: u64) -> Frame {
        let _ = number;
        Frame
    }
}

fn main() {}
