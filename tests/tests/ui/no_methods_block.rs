use quark::prelude::*;

#[derive(Actor)]
struct Camera;

fn host() -> quark::SiloBuilder {
    Silo::builder().host::<Camera>()
}

fn main() {}
