use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods]
impl Camera {
    #[on_activate]
    async fn load(&mut self, cx: &Cx, path: String) -> Result<()> {
        let _ = (cx, path);
        Ok(())
    }
}

fn main() {}
