use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_stream("cameras/frames", buffer(min = 10, max = 5))]
    async fn frame(&mut self, frame: u64) {
        let _ = frame;
    }
}

fn main() {}
