use quark::prelude::*;

#[derive(Actor)]
struct Keeper;

#[methods]
impl Keeper {
    #[durable]
    fn helper(&self) {}
}

fn main() {}
