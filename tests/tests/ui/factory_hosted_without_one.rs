use quark::prelude::*;

#[derive(Actor)]
#[actor(factory)]
struct Camera {
    socket: std::net::UdpSocket,
}

#[methods]
impl Camera {}

fn host() -> quark::SiloBuilder {
    Silo::builder().host::<Camera>()
}

fn main() {}
