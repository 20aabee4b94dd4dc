use quark::prelude::*;

struct Camera;

#[methods]
impl &Camera {}

fn main() {}
