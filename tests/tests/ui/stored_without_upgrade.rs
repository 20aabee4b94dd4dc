use quark::prelude::*;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Stored)]
struct Old;

#[derive(Serialize, Deserialize, Stored)]
#[stored(version = 2, upgrades = Old)]
struct New;

fn main() {}
