use quark::prelude::*;

struct Parcel;

#[derive(Actor)]
#[actor(dead_letters(max = 100))]
struct Mailer;

#[methods]
impl Mailer {
    pub async fn send(&mut self, parcel: Parcel) {
        drop(parcel);
    }

    #[no_dead_letters]
    pub async fn hand_over(&mut self, parcel: Parcel) {
        drop(parcel);
    }
}

fn main() {}
