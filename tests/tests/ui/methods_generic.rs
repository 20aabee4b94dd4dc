use quark::prelude::*;

struct Camera<T>(T);

#[methods]
impl<T> Camera<T> {}

fn main() {}
