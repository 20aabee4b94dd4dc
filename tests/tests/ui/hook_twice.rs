use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_activate]
    async fn load(&mut self) -> Result<()> {
        Ok(())
    }

    #[on_activate]
    async fn warm(&mut self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
