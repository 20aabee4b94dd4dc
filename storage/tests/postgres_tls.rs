//! The store in a PostgreSQL over TLS, with certificates made for the test.

mod certificates;

use certificates::{Authority, text};
use quark_base::{Fault as _, Outcome, Timestamp};
use quark_runtime::store::{Address, Commit, Epoch, Fence, Store, StoreError};
use quark_servers::{Server, local};
use quark_storage::OpenError;

/// A server that is spoken to by TLS only, as `localhost`.
struct Secure {
    server: Server,
    authority: Authority,
}

impl Secure {
    /// `access` is what its clients must have besides a password.
    fn start(access: &str) -> Self {
        let authority = Authority::new();
        let own = authority.sign("server", &["localhost"]);
        let access =
            authority.write("hba", &format!("hostssl all all 127.0.0.1/32 scram-sha-256 {access}\n"));
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", text(&own.certificate)),
            format!("ssl_key_file={}", text(&own.key)),
            format!("ssl_ca_file={}", text(&authority.file())),
            format!("hba_file={}", text(&access)),
        ];
        let server = local::postgres(&settings.each_ref().map(String::as_str));
        Self { server: server.unwrap_or_else(|error| panic!("{error}")), authority }
    }

    async fn open(&mut self, host: &str, settings: &str) -> Result<Store, StoreError> {
        let (password, port) =
            (local::POSTGRES_PASSWORD, self.server.process().expect("a process of ours").port());
        let url = format!("postgres://quark:{password}@{host}:{port}/postgres?{settings}");
        match quark_storage::open(&url.parse().expect("an address")).await {
            Ok(store) => Ok(store),
            Err(OpenError::Store(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Opens the store and uses it.
    async fn works(&mut self, host: &str, settings: &str) {
        let store = self.open(host, settings).await.unwrap_or_else(|error| panic!("{settings}: {error}"));
        let actor = Address::new("t", settings);
        let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
        store.actors.commit(&Commit::new(actor.clone(), fence, Timestamp::VIRTUAL_ORIGIN)).await.unwrap();
        let loaded = store.actors.load(&actor, &Default::default()).await.unwrap();
        assert_eq!(loaded.last.map(|last| last.epoch), Some(Epoch(1)));
    }

    /// Why the store cannot be opened.
    async fn refused(&mut self, host: &str, settings: &str) -> StoreError {
        match self.open(host, settings).await {
            Err(error) => error,
            Ok(_) => panic!("{host} {settings} should not have opened"),
        }
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let mut secure = Secure::start("");
    let ca = text(&secure.authority.file());
    // Without its authority, the line is encrypted and nothing is known of who is at its other end.
    secure.works("127.0.0.1", "sslmode=require").await;
    secure.works("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")).await;
    secure.works("localhost", &format!("sslmode=verify-full&sslrootcert={ca}")).await;
    // A wrong name; an authority that has not signed it; and those that this machine trusts, none of which has.
    let other = Authority::new();
    let other_ca = text(&other.file());
    for (host, settings) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other_ca}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other_ca}")),
        ("localhost", "sslmode=verify-full".to_owned()),
    ] {
        let error = secure.refused(host, &settings).await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{settings}: {error:?}");
        assert!(error.to_string().contains("certificate"), "{settings}: {error}");
        assert_eq!(error.outcome(), Outcome::Rejected);
    }
    let error = secure.refused("localhost", "sslmode=verify-full&sslrootcert=/no/such/file").await;
    assert!(!error.to_string().contains(local::POSTGRES_PASSWORD), "{error}");
    // The server itself takes nothing that is not encrypted.
    let error = secure.refused("127.0.0.1", "sslmode=disable").await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate_of_ours() {
    let mut secure = Secure::start("clientcert=verify-full");
    let ca = text(&secure.authority.file());
    let with = |authority: &Authority, name: &str| {
        let own = authority.sign(name, &["client.example"]);
        let (certificate, key) = (text(&own.certificate), text(&own.key));
        format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}")
    };
    let (ours, of_another) = (with(&secure.authority, "quark"), with(&secure.authority, "somebody"));
    secure.works("localhost", &ours).await;
    let none = format!("sslmode=verify-full&sslrootcert={ca}");
    for settings in [&none, &of_another] {
        let error = secure.refused("localhost", settings).await;
        assert!(matches!(error, StoreError::Denied { .. }), "{settings}: {error:?}");
    }
    // The server does not know who signed this one, and hangs up.
    let stranger = Authority::new();
    let error = secure.refused("localhost", &with(&stranger, "quark")).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}
