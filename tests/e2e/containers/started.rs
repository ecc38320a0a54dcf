//! Starts what compose.yaml starts, without a container engine: the commands of its services, with
//! its secrets, as its users.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Receiver,
    leash::Directory,
    logs, ports,
    process::{Process, Signal},
    servers::Postgres,
    wait::wait_blocking,
};
use serde_json::Value;

use super::{
    jail::Jail,
    parsed::{compose, environment, image, make_secrets, words},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the Redis of compose.yaml, and waits until its health check says that it is up.
fn redis(service: &Value, made: &Path, directory: &Directory) -> Result<(Process, u16)> {
    let secrets = made.join("redis").display().to_string();
    let port = ports::free();
    let arguments: Vec<String> = words(&service["command"])?
        .iter()
        .map(|word| word.replace("/run/secrets", &secrets))
        .collect();
    let mut command = Command::new(&arguments[0]);
    command
        .args(&arguments[1..])
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .current_dir(directory.path());
    let mut process = Process::start("redis", command, directory)?;
    let check = words(&service["healthcheck"]["test"])?;
    ensure!(check[0] == "CMD-SHELL");
    let check = check[1]
        .replace("/run/secrets", &secrets)
        .replace("redis-cli", &format!("redis-cli -p {port}"));
    wait_blocking("the health check of redis succeeds", PATIENCE, || {
        let ended = process.ended().is_some();
        let healthy = Command::new("sh")
            .args(["-c", &check])
            .output()
            .is_ok_and(|output| output.status.success());
        (healthy || ended).then_some(())
    })?;
    ensure!(process.ended().is_none(), "redis: {}", logs::tail(process.log(), 20));
    // It is unhealthy without the password, because the check connects as clients do.
    let without = check.replace("REDISCLI_AUTH", "NOBODYS");
    ensure!(
        !Command::new("sh").args(["-c", &without]).output()?.status.success(),
        "it needs no password"
    );
    Ok((process, port))
}

/// Creates a database as the image of PostgreSQL does, and waits until the health check says that
/// it is up.
fn postgres(service: &Value, server: &Postgres) -> Result<()> {
    let text =
        |key: &str| service["environment"][key].as_str().context("a text").map(str::to_owned);
    let (user, database) = (text("POSTGRES_USER")?, text("POSTGRES_DB")?);
    server.query("postgres", &format!("CREATE ROLE {user} LOGIN SUPERUSER"))?;
    server.query("postgres", &format!("CREATE DATABASE {database} OWNER {user}"))?;
    let check = words(&service["healthcheck"]["test"])?;
    ensure!(check[0] == "CMD");
    let port = server.address().rsplit(':').next().context("a port")?.to_owned();
    let status = Command::new(&check[1])
        .args(&check[2..])
        .args(["-p", &port])
        .status()
        .context("pg_isready")?;
    ensure!(status.success(), "the health check of postgres fails: {status}");
    Ok(())
}

/// Writes the files of the service, with the addresses of the servers of this test.
fn put_secrets(jail: &Jail, made: &Path, addresses: &[(&str, String)]) -> Result<()> {
    for entry in fs::read_dir(made.join("outrider"))? {
        let entry = entry?;
        let mut text = fs::read_to_string(entry.path())?;
        for (name, address) in addresses {
            text = text.replace(name, address);
        }
        let file = jail.path("/etc/outrider").join(entry.file_name());
        fs::write(&file, text)?;
        // Keeps the modes that the service `secrets` set.
        fs::set_permissions(&file, entry.metadata()?.permissions())?;
    }
    Ok(())
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_compose_starts_works_without_rights_and_writes_nothing() -> Result<()> {
    let Some(compose) = compose()? else { return Ok(()) };
    let services = &compose["services"];
    let (made, logs_of) = (Directory::create()?, Directory::create()?);
    make_secrets(&compose, made.path())?;
    let service = &services["outrider"];
    let Some(mut jail) = Jail::new(environment(&image()?, service)?)? else { return Ok(()) };

    let server = Postgres::start()?;
    postgres(&services["postgres"], &server)?;
    let (_redis, redis_port) = redis(&services["redis"], made.path(), &logs_of)?;
    let addresses =
        [("postgres:5432", server.address()), ("redis:6379", format!("127.0.0.1:{redis_port}"))];
    put_secrets(&jail, made.path(), &addresses)?;
    let receiver = Receiver::start().await?;
    let gateway = format!("127.0.0.1:{}", ports::free());
    jail.set("OUTRIDER_GATEWAY_LISTEN", gateway.clone());
    jail.set("OUTRIDER_OPERATIONS_LISTEN", format!("127.0.0.1:{}", ports::free()));
    jail.set("OUTRIDER_EGRESS_ALLOW", "127.0.0.1".to_owned());

    ensure!(jail.run(&["health"])?.status.code() == Some(1), "nothing is healthy yet");
    let migrate = words(&services["migrate"]["command"])?;
    jail.text(&migrate.iter().map(String::as_str).collect::<Vec<_>>())?;
    let serve = words(&service["command"])?;
    let command = jail.command(&serve.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut process = Process::start("serve", command, &logs_of)?;
    wait_blocking("outrider health succeeds", PATIENCE, || {
        let healthy = jail.run(&["health"]).is_ok_and(|output| output.status.success());
        (healthy || process.ended().is_some()).then_some(())
    })?;
    ensure!(process.ended().is_none(), "serve: {}", logs::tail(process.log(), 20));

    let first = json(&jail.text(&["bootstrap", "--json"])?)?;
    ensure!(json(&jail.text(&["bootstrap", "--json"])?)?["created"] == false);
    for (variable, key) in [("OUTRIDER_API_KEY", "token"), ("OUTRIDER_PROJECT", "project_id")] {
        jail.set(variable, first[key].as_str().context("bootstrap told it")?.to_owned());
    }
    jail.set("OUTRIDER_SERVER", format!("http://{gateway}"));
    let endpoint =
        json(&jail.text(&["endpoints", "create", "--url", &receiver.url("/here"), "--json"])?)?;
    let endpoint = endpoint["endpoint"]["endpoint_id"].as_str().context("an id")?.to_owned();
    jail.text(&["subscriptions", "create", &endpoint, "*"])?;
    // Wait until every process knows the subscription.
    wait_blocking("an event is routed", PATIENCE, || {
        let published = jail.text(&["publish", "a.b", "1", "--json"]).ok()?;
        (json(&published).ok()?["delivery_count"] == 1).then_some(())
    })?;
    wait_blocking("a webhook arrives", PATIENCE, || (receiver.total("/here") > 0).then_some(()))?;

    process.signal(Signal::Terminate)?;
    let status = process.wait(PATIENCE)?;
    let log = fs::read_to_string(process.log())?;
    ensure!(
        status.success() && !log.contains("Read-only") && !log.contains("denied"),
        "{status}: {log}"
    );
    Ok(())
}

#[test]
fn the_image_shows_the_demo_and_refuses_to_write_beside_its_volume() -> Result<()> {
    let Some(mut jail) = Jail::new(BTreeMap::new())? else { return Ok(()) };
    // `bootstrap` would write to SQLite, so its refusal shows that nothing can be written.
    let refused = jail.run(&["bootstrap"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && words.contains("Read-only file system"), "{words}");
    jail.give_scratch();
    let told = jail.text(&["demo"])?;
    ensure!(told.contains("All 6 events arrived"), "{told}");
    Ok(())
}
