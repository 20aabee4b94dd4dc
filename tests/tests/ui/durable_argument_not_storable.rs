use quark::prelude::*;

struct Handle;

#[derive(Actor)]
struct Keeper;

#[methods]
impl Keeper {
    #[durable]
    pub async fn take(&mut self, handle: Handle) {
        let _ = handle;
    }
}

fn main() {}
