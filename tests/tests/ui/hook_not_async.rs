use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_activate]
    fn load(&mut self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
