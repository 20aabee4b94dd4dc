use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    pub async fn look(&self, cx: &Cx, again: &Cx) {
        let _ = (cx, again);
    }
}

fn main() {}
