use quark::prelude::*;

const ALL: Topic<String> = Topic::new("cameras/*");

fn main() {
    let _ = ALL;
}
