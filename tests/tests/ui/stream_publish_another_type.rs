use quark::prelude::*;

const FRAMES: Topic<String> = Topic::new("cameras/frames");

async fn publish(grid: Grid) {
    let _ = grid.topic(&FRAMES).publish("cam-7", 1_u64).await;
}

fn main() {
    let _ = publish;
}
