use quark::prelude::*;

trait Look {}

#[derive(Actor)]
struct Camera;

#[methods]
impl Look for Camera {}

fn main() {}
