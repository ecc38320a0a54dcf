//! TLS everywhere: on the public port, between roles, to PostgreSQL and to Redis, and the clients
//! that it keeps out.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use outrider_proto::{
    ingest::{NewEvent, PublishEventRequest},
    internal::{AcceptEventsRequest, intake_service_client::IntakeServiceClient},
};
use outrider_tests::{
    Outrider, Shape,
    client::{Rest, connect_tls, exchange, presented, tls},
    cluster::Options,
    pki::{Identity, Pki},
    process::Signal,
    servers::{Postgres, Redis},
    wait_until,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::scenario::{BOUND, Scenario, run_with_shares, with_logs};

/// The roles whose listeners other roles call.
const LISTENERS: [&str; 4] = ["ingest", "dispatch", "admin", "egress"];

struct Secured {
    outrider: Outrider,
    postgres: Postgres,
    pki: Pki,
    roles: Identity,
    public: Identity,
    _redis: Redis,
}

fn start() -> Result<Secured> {
    let pki = Pki::create()?;
    let (servers, roles, public) =
        (pki.issue("servers")?, pki.issue("roles")?, pki.issue("public")?);
    let (postgres, redis) = (Postgres::start_tls(&servers)?, Redis::start_tls(&servers)?);
    let options = Options {
        between_roles: Some(roles.clone()),
        public: Some(public.clone()),
        more: json!({
            // Roles know each other by the certificate alone.
            "internal": {"token": null, "tls_reload_interval": "1h"},
            "gateway": {"tls_reload_interval": "200ms"},
            "queue": {
                "tls_ca_file": roles.authority, "tls_certificate_file": roles.certificate,
                    "tls_private_key_file": roles.private_key,
            },
        }),
        ..Options::default()
    };
    let outrider = Outrider::start(Shape::Mesh, &options, Some(&postgres), Some(&redis))?;
    Ok(Secured { outrider, postgres, pki, roles, public, _redis: redis })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_by_tls() {
    run_with_shares(2, async || {
        let secured = tokio::task::spawn_blocking(start).await??;
        check(&secured).await.map_err(|error| with_logs(&error, &secured.outrider))
    })
    .await;
}

async fn check(secured: &Secured) -> Result<()> {
    let scenario = Scenario::new(&secured.outrider).await?;
    scenario.target("/hook", &["*"], json!({})).await?;
    let by_rest = scenario.publish_id("a", json!({"by": "rest"})).await?;
    let event = NewEvent { event_type: "a".into(), payload: "{}".into(), ..NewEvent::default() };
    let request = PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) };
    let by_grpc =
        scenario.grpc().await?.ingest().publish_event(request).await?.into_inner().event_id;
    for event in [by_rest, by_grpc] {
        scenario.delivery_in(&event, "DELIVERED").await?;
    }
    let plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE \
        application_name = 'outrider' AND NOT ssl";
    ensure!(
        secured.postgres.query("postgres", plain)?.trim() == "0",
        "a connection to PostgreSQL is plain"
    );
    public_port(secured, &scenario).await?;
    for role in LISTENERS {
        strangers(secured, role).await.with_context(|| format!("at the listener of {role}"))?;
    }
    impostors(secured).await?;
    new_certificate(secured).await
}

/// Serves both versions of HTTP on one port. A client of plain HTTP is told to use TLS.
async fn public_port(secured: &Secured, scenario: &Scenario) -> Result<()> {
    let address = &scenario.address;
    let plain = exchange(
        address,
        [b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec()],
    )
    .await?;
    ensure!(plain.status == 400 && plain.text.contains("https://"), "{plain:?}");
    let stranger = Pki::create()?;
    ensure!(
        presented(&stranger.authority(), address).await.is_err(),
        "the certificate is not of that authority"
    );
    ensure!(
        presented(&secured.pki.authority(), address).await? == der(&secured.public.certificate)?,
        "another certificate"
    );
    Ok(())
}

fn der(path: &Path) -> Result<Vec<u8>> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
    Ok(CertificateDer::from_pem_slice(&fs::read(path)?)?.to_vec())
}

/// Refuses clients without TLS, and clients without a certificate of the roles' authority.
async fn strangers(secured: &Secured, role: &str) -> Result<()> {
    let address = secured.outrider.role_address(role);
    let others = Pki::create()?;
    let other = others.issue("other")?;
    // A role gets an answer, whatever it sends.
    ensure!(
        says_something(&secured.pki, Some(&secured.roles), &address).await?,
        "a role is not served"
    );
    ensure!(
        !says_something(&secured.pki, None, &address).await?,
        "a client without a certificate is served"
    );
    ensure!(
        !says_something(&secured.pki, Some(&other), &address).await?,
        "a certificate of another authority is taken"
    );
    let plain = exchange(&address, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()]).await?;
    ensure!(plain.status == 400 || plain.text.is_empty(), "plain HTTP is served: {plain:?}");
    Ok(())
}

/// Whether a listener answers the preface of HTTP/2. The egress does, with an HTTP refusal.
async fn says_something(pki: &Pki, identity: Option<&Identity>, address: &str) -> Result<bool> {
    let tls = tls(&pki.authority(), identity)?;
    let talk = async {
        let mut stream = connect_tls(&tls, address).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let mut answer = [0; 9];
        let read = stream.read(&mut answer).await?;
        anyhow::Ok(read > 0)
    };
    // In TLS 1.3 a server refuses a client's certificate after the client's handshake is done.
    Ok(tokio::time::timeout(BOUND, talk).await.context("the listener hangs")?.unwrap_or(false))
}

/// A gRPC call of an internal service fails if everything but the certificate is right.
async fn impostors(secured: &Secured) -> Result<()> {
    let url = format!("https://{}", secured.outrider.role_address("dispatch"));
    let authority = Certificate::from_pem(fs::read(secured.pki.authority())?);
    let channel = Endpoint::from_shared(url)?
        .tls_config(ClientTlsConfig::new().ca_certificate(authority))?
        .connect_lazy();
    let call =
        IntakeServiceClient::new(channel).accept_events(AcceptEventsRequest::default()).await;
    ensure!(call.is_err(), "a stranger calls internal services");
    Ok(())
}

/// A new certificate is presented without a restart. An invalid one is not, and the old one stays.
async fn new_certificate(secured: &Secured) -> Result<()> {
    let (address, authority) = (secured.outrider.address(), secured.pki.authority());
    let old = der(&secured.public.certificate)?;
    let key = fs::read(&secured.public.private_key)?;
    secured.pki.issue("public")?;
    let new = der(&secured.public.certificate)?;
    let new_key = fs::read(&secured.public.private_key)?;
    ensure!(old != new, "the certificate is another");
    wait_until("the new certificate is presented", BOUND, async || {
        (presented(&authority, &address).await.ok()? == new).then_some(())
    })
    .await?;
    // A key that does not belong to the certificate is refused, the log says so, and the old pair
    // stays in use.
    fs::write(&secured.public.private_key, key)?;
    wait_until("the bad pair is refused", BOUND, async || {
        secured.outrider.logs(200).contains("new certificates are refused").then_some(())
    })
    .await?;
    ensure!(presented(&authority, &address).await? == new, "the old pair went away");
    fs::write(&secured.public.private_key, new_key)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_certificates_again() {
    run_with_shares(1, async || {
        let pki = Pki::create()?;
        let public = pki.issue("public")?;
        let options = Options {
            public: Some(public.clone()),
            more: json!({"gateway": {"tls_reload_interval": "1h"}}),
            ..Options::default()
        };
        let mut outrider = tokio::task::spawn_blocking(move || {
            Outrider::start(Shape::Sqlite, &options, None, None)
        })
        .await??;
        let (address, authority) = (outrider.address(), pki.authority());
        ensure!(presented(&authority, &address).await? == der(&public.certificate)?);
        pki.issue("public")?;
        let new = der(&public.certificate)?;
        outrider.signal("gateway", Signal::HangUp)?;
        wait_until("the new certificate is presented", BOUND, async || {
            (presented(&authority, &address).await.ok()? == new).then_some(())
        })
        .await?;
        let rest = Rest::trusting(&outrider.url(), Some(&outrider.token), &authority)?;
        ensure!(rest.send(Method::GET, "/v1/projects", "").await?.status == 200);
        let status = outrider.terminate("gateway", Duration::from_secs(20))?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn impossible_tls_is_refused_at_start() {
    use std::process::Command;
    let refusal = |flags: &[String]| -> Result<String> {
        let mut command = Command::new(outrider_tests::cluster::binary()?);
        // Gateway and egress need neither a database nor a queue.
        command.args([
            "serve",
            "--role",
            "gateway",
            "--role",
            "egress",
            "--set",
            "operations.listen=",
        ]);
        for flag in flags {
            command.args(["--set", flag]);
        }
        let output = command.output()?;
        ensure!(!output.status.success(), "it started: {flags:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    run_with_shares(1, async || {
        let pki = Pki::create()?;
        let (one, other) = (pki.issue("one")?, pki.issue("other")?);
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        let internal = [
            set("internal.tls_certificate_file", &one.certificate),
            set("internal.tls_private_key_file", &one.private_key),
            set("internal.tls_ca_file", &one.authority),
        ];
        for (flags, expected) in [
            // The default URLs of roles in other processes are plain.
            (internal.to_vec(), "gateway.ingest_url"),
            (vec!["gateway.ingest_url=https://127.0.0.1:1".to_owned()], "gateway.ingest_url"),
            (internal[..2].to_vec(), "internal.tls_ca_file"),
            (
                vec![
                    set("gateway.tls_certificate_file", &one.certificate),
                    set("gateway.tls_private_key_file", &other.private_key),
                ],
                "gateway.tls_certificate_file",
            ),
            (
                vec!["egress.listen=0.0.0.0:0".to_owned()],
                "internal.token or internal.tls_certificate_file",
            ),
        ] {
            let said = refusal(&flags)?;
            ensure!(said.contains(expected), "{flags:?}: {said}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_trust_file_that_is_of_no_use_is_refused_at_start() {
    run_with_shares(1, async || {
        let pki = Pki::create()?;
        let identity = pki.issue("receiver")?;
        let (certificate, key) = (
            fs::read_to_string(&identity.certificate)?,
            fs::read_to_string(&identity.private_key)?,
        );
        let file = identity.certificate.with_extension("trusted");
        for (content, expected) in [
            (String::new(), "holds no certificate in PEM"),
            ("garbage".to_owned(), "holds no certificate in PEM"),
            (key, "holds no certificate in PEM"),
            (
                certificate.replace(" CERTIFICATE", " TRUSTED CERTIFICATE"),
                "holds no certificate in PEM",
            ),
            (
                format!(
                    "{certificate}-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"
                ),
                "certificate 2 of it",
            ),
        ] {
            fs::write(&file, &content)?;
            let mut command = std::process::Command::new(outrider_tests::cluster::binary()?);
            let set = format!("worker.extra_roots_file={}", file.display());
            let output =
                command.args(["serve", "--set", "operations.listen=", "--set", &set]).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(!output.status.success(), "it started with {content:?}");
            ensure!(
                said.contains("worker.extra_roots_file") && said.contains(expected),
                "{content:?}: {said}"
            );
            ensure!(said.contains(&file.display().to_string()) && !said.contains("AQID"), "{said}");
        }
        Ok(())
    })
    .await;
}

/// Refuses a PostgreSQL or Redis server whose certificate is from another authority.
#[tokio::test]
async fn servers_with_other_certificates_are_not_trusted() {
    run_with_shares(1, async || {
        let (pki, other) = (Pki::create()?, Pki::create()?);
        let postgres = Postgres::start_tls(&pki.issue("server")?)?;
        let good = postgres.create_database()?;
        let authority = |pki: &Pki| pki.authority().display().to_string();
        let bad = good.replace(&authority(&pki), &authority(&other));
        let migrate = |url: &str| -> Result<bool> {
            let mut command = std::process::Command::new(outrider_tests::cluster::binary()?);
            let key = "secrets.master_key=test:dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU=";
            command.args(["migrate", "up", "--set", key, "--set", &format!("database.url={url}")]);
            Ok(command.output()?.status.success())
        };
        ensure!(!migrate(&bad)?, "a certificate of another authority is taken");
        ensure!(migrate(&good)?, "the right one is not");
        Ok(())
    })
    .await;
}
