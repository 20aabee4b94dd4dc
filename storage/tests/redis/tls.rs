//! The store over TLS, with certificates made for the test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quark_runtime::store::StoreError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::faults::Writer;
use super::server::{Server, free_port};
use super::{open_url, refused};

/// Writes an authority's certificate, and one of a server on loopback that it signed.
fn certificates(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        // The server may run as somebody else.
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        file
    };
    (
        write("ca.pem", authority.pem()),
        write("server.pem", server.pem()),
        write("key.pem", key.serialize_pem()),
    )
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, certificate, key) = certificates(folder.path());
    let text = |path: &Path| path.display().to_string();
    let tls_port = free_port().to_string();
    let server = Server::start(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &text(&certificate),
        "--tls-key-file",
        &text(&key),
        "--tls-ca-cert-file",
        &text(&ca),
        "--tls-auth-clients",
        "no",
    ]);
    let store = open_url(&format!("rediss://127.0.0.1:{tls_port}?ca={}", text(&ca))).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    assert_eq!(writer.read(&store).await.as_deref(), Some("1"));
    // Nobody this machine trusts has signed it; nor has another authority.
    let other = tempfile::tempdir().unwrap();
    let (other_ca, ..) = certificates(other.path());
    for query in [String::new(), format!("?ca={}", text(&other_ca))] {
        let error = refused(&format!("rediss://127.0.0.1:{tls_port}{query}")).await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let error = refused(&format!("rediss://127.0.0.1:{tls_port}?ca=/no/such/file")).await;
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    drop(server);
}
