//! The smallest whole program: one actor type, one silo, a few calls.

use quark::prelude::*;

#[derive(Actor)]
#[actor(name = "hello.greeter", idle = "10m")]
struct Greeter {
    greeted: u64,
}

#[methods]
impl Greeter {
    pub async fn greet(&mut self, cx: &Cx, name: String) -> String {
        self.greeted += 1;
        format!("Hello {name}, you are number {} at {}.", self.greeted, cx.key())
    }

    pub async fn greeted(&self) -> u64 {
        self.greeted
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let silo = Silo::builder().host::<Greeter>().start()?;
    let desk = silo.grid().actor::<Greeter>("the front desk");
    for name in ["Ada", "Grace", "Edsger"] {
        show(&desk.greet(name.to_owned()).await?);
    }
    show(&format!("{} people were greeted.", desk.greeted().await?));
    silo.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this program is for people to look at")]
fn show(line: &str) {
    println!("{line}");
}
