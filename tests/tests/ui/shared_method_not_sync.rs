use quark::prelude::*;

use std::cell::Cell;

#[derive(Actor)]
struct Camera {
    frames: Cell<u64>,
}

#[methods]
impl Camera {
    pub async fn count(&self) -> u64 {
        self.frames.get()
    }
}

fn main() {}
