use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_stream("cameras/frames", flow = "drop")]
    async fn frame(&mut self, frame: u64) {
        let _ = frame;
    }
}

fn main() {}
