use quark::prelude::*;

#[derive(Actor)]
struct Boss;

#[methods]
impl Boss {
    #[on_child_failure]
    async fn judge(&mut self, failure: &quark::ChildFailure) -> quark::Directive {
        let _ = failure;
        quark::Directive::Stop
    }
}

fn main() {}
