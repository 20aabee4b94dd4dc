use quark::prelude::*;

struct Plain;

impl Default for Plain {
    fn default() -> Self {
        Self
    }
}

#[derive(Actor)]
struct Keeper {
    #[state]
    plain: State<Plain>,
}

#[methods]
impl Keeper {}

fn main() {}
