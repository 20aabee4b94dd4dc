use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_deactivate]
    async fn save(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
