use quark::prelude::*;

#[derive(Actor)]
struct Keeper;

#[methods]
impl Keeper {
    pub async fn take(&mut self, cx: &Cx) -> Result<(), StateError> {
        let other = cx.grid().actor::<Keeper>("b");
        let mut transaction = cx.transaction();
        transaction.send(other.take())?;
        transaction.commit().await
    }
}

fn main() {}
