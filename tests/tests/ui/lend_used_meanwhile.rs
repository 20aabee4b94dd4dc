use quark::prelude::*;

#[derive(Actor)]
struct Camera {
    frames: u64,
}

#[methods]
impl Camera {
    pub async fn look(&mut self, cx: &Cx) {
        let other = cx.grid().actor::<Camera>("other");
        let lent = cx.lend(self, other.look());
        self.frames += 1;
        lent.await.unwrap();
    }
}

fn main() {}
