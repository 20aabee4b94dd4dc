use quark::prelude::*;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Stored)]
#[stored(version = 2)]
struct Old;

#[derive(Serialize, Deserialize, Stored)]
#[stored(version = 2, upgrades = Old)]
struct New;

impl From<Old> for New {
    fn from(_: Old) -> Self {
        Self
    }
}

fn main() {}
