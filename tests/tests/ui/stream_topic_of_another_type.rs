use quark::prelude::*;

const FRAMES: Topic<String> = Topic::new("cameras/frames");

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_stream(FRAMES)]
    async fn frame(&mut self, frame: u64) {
        let _ = frame;
    }
}

fn main() {}
