use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_stream("cameras/frames")]
    async fn frame(&mut self, cx: &Cx) {
        let _ = cx;
    }
}

fn main() {}
