use quark::prelude::*;

struct Camera;

fn call(grid: &Grid) {
    grid.actor::<Camera>("cam-7");
}

fn main() {}
