//! Encrypted connections with the test's own authority: the `tls` block that `nats.conf` has in
//! comments, and the certificates of a role.

use std::path::PathBuf;
use std::sync::Once;

use baton_nats::{Bus, BusOptions, Tls};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::permissions::{Delivered, readable_folder};
use crate::soon;

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self {
            issuer,
            folder: readable_folder(),
        };
        let pem = authority.issuer.pem();
        std::fs::write(authority.path("ca.pem"), pem).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a certificate and its key, as files.
    fn certify(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (PathBuf, PathBuf) {
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(hosts).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate: Certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    /// Returns the delivered `tls` block with this authority's files.
    pub(crate) fn block(&self, verify: bool) -> String {
        let (certificate, key) = self.certify("server", ExtendedKeyUsagePurpose::ServerAuth);
        let conf = include_str!("../../nats.conf");
        let from = conf.find("# tls {").unwrap();
        let to = from + conf[from..].find("# }\n").unwrap() + "# }\n".len();
        let block = conf[from..to].replace("\n#", "\n").replacen('#', "", 1);
        let path = |path: PathBuf| format!("\"{}\"", path.display());
        block
            .replace("/etc/nats/server.pem", &path(certificate))
            .replace("/etc/nats/server.key", &path(key))
            .replace("/etc/nats/ca.pem", &path(self.path("ca.pem")))
            .replace("verify: true", &format!("verify: {verify}"))
    }

    pub(crate) fn trusted(&self) -> Tls {
        Tls {
            ca: Some(self.path("ca.pem")),
            identity: None,
            required: true,
        }
    }

    pub(crate) fn with_certificate(&self) -> Tls {
        Tls {
            identity: Some(self.certify("client", ExtendedKeyUsagePurpose::ClientAuth)),
            ..self.trusted()
        }
    }
}

/// Installs the crypto provider, as the program does at its start.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _other = rustls::crypto::ring::default_provider().install_default();
    });
}

async fn connects(delivered: &Delivered, tls: Tls) -> bool {
    let options = BusOptions {
        tls,
        ..delivered.options("migrate")
    };
    match Box::pin(soon(Bus::connect(options))).await {
        Ok(bus) => {
            bus.ping().await.unwrap();
            true
        }
        Err(_refused) => false,
    }
}

#[tokio::test]
async fn a_server_is_believed_if_the_right_authority_has_signed_it() {
    install_crypto();
    let (right, wrong) = (Authority::new(), Authority::new());
    let delivered = Delivered::start_with(&right.block(false)).await;
    assert!(connects(&delivered, right.trusted()).await);
    assert!(!connects(&delivered, wrong.trusted()).await);
    assert!(!connects(&delivered, Tls::default()).await, "no authority");
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_takes_only_those_of_its_authority() {
    install_crypto();
    let (right, wrong) = (Authority::new(), Authority::new());
    let delivered = Delivered::start_with(&right.block(true)).await;
    assert!(connects(&delivered, right.with_certificate()).await);
    assert!(!connects(&delivered, right.trusted()).await, "none");
    let foreign = Tls {
        ca: right.trusted().ca,
        ..wrong.with_certificate()
    };
    assert!(!connects(&delivered, foreign).await);
}

#[tokio::test]
async fn nothing_is_said_in_the_clear() {
    install_crypto();
    let right = Authority::new();
    let delivered = Delivered::start_with(&right.block(false)).await;
    let stream = TcpStream::connect(("127.0.0.1", delivered.server.port()))
        .await
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.unwrap();
    assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
    let password = delivered.accounts.password_of("migrate");
    let connect = format!("CONNECT {{\"user\":\"migrate\",\"pass\":\"{password}\"}}\r\nPING\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The connection may also be reset.
    let _end = soon(stream.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("PONG"));

    // A role that must encrypt sends nothing to a server that does not.
    let plain = Delivered::start().await;
    assert!(!connects(&plain, right.trusted()).await);
}
