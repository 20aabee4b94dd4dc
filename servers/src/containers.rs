//! Servers in containers, from the images that `cargo xtask images` makes of the machine's own packages.

use std::process::{Command, Stdio};

use testcontainers_modules::testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers_modules::testcontainers::runners::AsyncRunner as _;
use testcontainers_modules::testcontainers::{ContainerAsync, GenericImage};

use crate::local::POSTGRES_PASSWORD;
use crate::{Kind, Server, StartError};

/// The images' names.
const POSTGRES_IMAGE: &str = "quark-test-postgres";
const REDIS_IMAGE: &str = "quark-test-redis";

/// A container that ends when dropped.
pub(crate) struct Container {
    _container: ContainerAsync<GenericImage>,
}

pub(crate) fn name(_: &Container) -> &'static str {
    "container"
}

pub(crate) async fn postgres() -> Result<Option<Server>, StartError> {
    let ready = WaitFor::message_on_stderr("database system is ready to accept connections");
    let address = |host: &str, port| {
        format!("postgres://quark:{POSTGRES_PASSWORD}@{host}:{port}/postgres?sslmode=disable")
    };
    start(POSTGRES_IMAGE, 5432, ready, address).await
}

pub(crate) async fn redis() -> Result<Option<Server>, StartError> {
    let ready = WaitFor::message_on_stdout("Ready to accept connections");
    start(REDIS_IMAGE, 6379, ready, |host, port| format!("redis://{host}:{port}")).await
}

async fn start(
    image: &str,
    port: u16,
    ready: WaitFor,
    address: impl Fn(&str, u16) -> String,
) -> Result<Option<Server>, StartError> {
    if !has_image(image) {
        return Ok(None);
    }
    let failed = |error: testcontainers_modules::testcontainers::TestcontainersError| {
        StartError::Container(error.to_string())
    };
    let image = GenericImage::new(image, "latest").with_exposed_port(port.tcp()).with_wait_for(ready);
    let container = image.start().await.map_err(failed)?;
    let host = container.get_host().await.map_err(failed)?.to_string();
    let port = container.get_host_port_ipv4(port).await.map_err(failed)?;
    let address = address(&host, port);
    Ok(Some(Server { address, kind: Kind::Container(Box::new(Container { _container: container })) }))
}

/// Whether an engine answers and has the image.
fn has_image(image: &str) -> bool {
    let mut ask = Command::new("docker");
    ask.args(["image", "inspect", image]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}
