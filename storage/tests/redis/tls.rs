//! The store over TLS, with certificates made for the test.

use quark_runtime::store::StoreError;

use super::certificates::{Authority, Certificate, text};
use super::faults::Writer;
use super::server::{Server, free_port};
use super::{open_url, refused};

/// A server with this certificate, and its port for TLS.
fn start(authority: &Authority, own: &Certificate) -> (Server, String) {
    let port = free_port().to_string();
    let (ca, certificate, key) = (text(&authority.file()), text(&own.certificate), text(&own.key));
    let server = Server::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    (server, port)
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let authority = Authority::new();
    let ca = text(&authority.file());
    let (server, port) = start(&authority, &authority.sign("server", &["127.0.0.1", "localhost"]));
    let store = open_url(&format!("rediss://127.0.0.1:{port}?ca={ca}")).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    assert_eq!(writer.read(&store).await.as_deref(), Some("1"));
    // Nobody this machine trusts has signed it; nor has another authority.
    let other = Authority::new();
    for query in [String::new(), format!("?ca={}", text(&other.file()))] {
        let error = refused(&format!("rediss://127.0.0.1:{port}{query}")).await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let error = refused(&format!("rediss://127.0.0.1:{port}?ca=/no/such/file")).await;
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_server_is_refused_under_a_name_that_its_certificate_lacks() {
    let authority = Authority::new();
    let ca = text(&authority.file());
    let (server, port) = start(&authority, &authority.sign("server", &["localhost"]));
    drop(open_url(&format!("rediss://localhost:{port}?ca={ca}")).await);
    let error = refused(&format!("rediss://127.0.0.1:{port}?ca={ca}")).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    drop(server);
}
