use quark::prelude::*;

#[derive(Actor)]
struct Camera;

#[methods(name = "camera")]
impl Camera {}

fn main() {}
