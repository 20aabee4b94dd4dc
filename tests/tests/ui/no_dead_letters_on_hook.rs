use quark::prelude::*;

#[derive(Actor)]
#[actor(dead_letters)]
struct Mailer;

#[methods]
impl Mailer {
    #[on_activate]
    #[no_dead_letters]
    async fn wake(&mut self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
