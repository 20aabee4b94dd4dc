use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_activate]
    #[on_stream("cameras/frames")]
    async fn load(&mut self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
