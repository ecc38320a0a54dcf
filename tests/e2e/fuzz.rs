//! Fuzzes the REST API from its own OpenAPI document, with schemathesis: no 5xx, every answer as
//! documented, invalid input refused, nothing without an API key.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{Receiver, Shape, cluster::Options, leash::Directory, logs, process::Process};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::scenario::{self, SHARES, Scenario, run_with_shares, text};

/// The time that a run may take in addition to its share: to load, and to end what has begun.
const SLACK: std::time::Duration = std::time::Duration::from_secs(120);

/// Returns the time of all runs together, in seconds: OUTRIDER_TEST_FUZZ_SECONDS, default 60.
fn seconds() -> u64 {
    std::env::var("OUTRIDER_TEST_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60)
}

/// Returns the seed, OUTRIDER_TEST_FUZZ_SEED, default 1. The same seed makes the same data.
fn seed() -> String {
    std::env::var("OUTRIDER_TEST_FUZZ_SEED").unwrap_or_else(|_| "1".to_owned())
}

/// Returns the command of schemathesis, which is installed beside the Python of the tests. Without
/// it, prints that the test is skipped and returns `None`, or fails if nothing may be skipped.
fn schemathesis() -> Result<Option<PathBuf>> {
    let python = std::env::var_os("OUTRIDER_TEST_PYTHON").map(PathBuf::from);
    let found = python
        .and_then(|python| Some(python.parent()?.join("schemathesis")))
        .filter(|path| path.is_file());
    if found.is_none() {
        ensure!(
            std::env::var_os("OUTRIDER_TEST_STRICT").is_none(),
            "no schemathesis beside OUTRIDER_TEST_PYTHON"
        );
        eprintln!("SKIPPED: there is no schemathesis; tests/run installs it");
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_api_holds_to_its_document() {
    run_with_shares(SHARES / 2, async || {
        let Some(command) = schemathesis()? else { return Ok(()) };
        let outrider =
            block_in_place(|| scenario::start(Shape::Sqlite, &Options::default(), None))?;
        let scenario = Scenario::new(&outrider).await?;
        let work = async {
            let objects = Objects::new(&scenario).await?;
            let time = Extent::Time(seconds() * 2 / 3);
            let everything = Run {
                name: "everything",
                extent: time,
                more: &["--phases", "examples,coverage,fuzzing"],
            };
            everything.run(&command, &scenario, &objects).await?;
            let deep = ["--mode", "positive", "--phases", "fuzzing,stateful"];
            Run { name: "valid", extent: Extent::Time(seconds() / 3), more: &deep }
                .run(&command, &scenario, &objects)
                .await?;
            // How far a timed run gets depends on the machine. This run has a number of cases
            // instead, because the number of its events is checked.
            let publish = [
                "--mode",
                "positive",
                "--phases",
                "fuzzing",
                "--include-operation-id",
                "IngestService_PublishEvent",
            ];
            Run { name: "published", extent: Extent::Cases(50), more: &publish }
                .run(&command, &scenario, &objects)
                .await?;
            let made = scenario
                .rest
                .get(&scenario.path("events?event_type=fuzz.made&page_size=500"))
                .await?;
            let made = made["events"].as_array().map_or(0, Vec::len);
            ensure!(
                made > 5,
                "only {made} events were published: requests did not get into the roles"
            );
            Ok(())
        };
        work.await.map_err(|error| scenario::with_logs(&error, &outrider))
    })
    .await;
}

/// The ids of real objects by the names of path variables, and those of objects that may be
/// deleted.
struct Objects {
    kept: Value,
    doomed: Value,
}

impl Objects {
    async fn new(scenario: &Scenario) -> Result<Self> {
        let (kept, doomed) = (Self::make(scenario).await?, Self::make(scenario).await?);
        scenario.settle().await?;
        let event = scenario.publish_id("fuzz.made", json!({})).await?;
        let page =
            scenario.rest.get(&scenario.path(&format!("deliveries?event_id={event}"))).await?;
        let delivery = text(&page["deliveries"][0], "delivery_id")?;
        outrider_tests::wait_until("the event is delivered", scenario::BOUND, async || {
            let attempts = scenario.attempts(&delivery).await.ok()?;
            text(attempts.first()?, "attempt_id").ok()
        })
        .await
        .map(|attempt| {
            let mut kept = kept;
            kept["event_id"] = event.into();
            kept["delivery_id"] = delivery.clone().into();
            kept["attempt_id"] = attempt.into();
            Self { kept, doomed }
        })
    }

    async fn make(scenario: &Scenario) -> Result<Value> {
        let rest = &scenario.rest;
        let target = scenario.endpoint("/fuzz", json!({})).await?;
        let subscription = scenario.subscribe(&target, &["fuzz.made"]).await?;
        let key = rest
            .post("/v1/api_keys", &json!({"name": "A key", "scopes": ["SCOPE_EVENTS_READ"]}))
            .await?;
        let organization =
            text(&rest.get("/v1/organizations").await?["organizations"][0], "organization_id")?;
        Ok(json!({
            "project_id": scenario.project, "organization_id": organization,
                "endpoint_id": target.id,
            "subscription_id": subscription, "api_key_id": key["api_key"]["api_key_id"],
        }))
    }
}

/// The extent of a run: a number of seconds, or a number of cases for each operation.
#[derive(Clone, Copy)]
enum Extent {
    Time(u64),
    Cases(u64),
}

impl Extent {
    fn arguments(self) -> [String; 2] {
        match self {
            Self::Time(seconds) => ["--max-time".to_owned(), seconds.max(1).to_string()],
            Self::Cases(cases) => ["--max-examples".to_owned(), cases.to_string()],
        }
    }

    /// Returns the number of requests below which a run has tested nothing.
    fn least(self) -> u64 {
        match self {
            Self::Time(seconds) => 2 * seconds,
            Self::Cases(cases) => cases / 2,
        }
    }
}

/// A run over the operations.
struct Run<'a> {
    name: &'a str,
    extent: Extent,
    more: &'a [&'a str],
}

impl Run<'_> {
    async fn run(&self, command: &Path, scenario: &Scenario, objects: &Objects) -> Result<()> {
        let document = scenario.rest.get("/openapi.json").await?;
        let receiver = Receiver::start().await?;
        let another = text(
            &scenario.rest.post("/v1/projects", &json!({"name": "To be deleted"})).await?,
            "project_id",
        )?;
        let directory = Directory::create()?;
        let config = configuration(&document, &scenario.token, objects, &another);
        std::fs::write(directory.path().join("schemathesis.toml"), toml::to_string(&config)?)?;
        let mut run = Command::new(command);
        // Examples of the document are really sent, and must not leave this machine.
        let local = without_headers(&document)
            .to_string()
            .replace("https://example.com/webhooks", &receiver.url("/fuzzed"));
        std::fs::write(directory.path().join("openapi.json"), local)?;
        run.current_dir(directory.path())
            .args(["run", "openapi.json", "--url", &scenario.url])
            .args(self.more);
        run.args([
            "--no-color",
            "--no-shrink",
            "--continue-on-failure",
            "--generation-database",
            "none",
            "--warnings",
            "off",
        ]);
        run.args(["--seed", &seed()]).args(self.extent.arguments());
        for operation in streams(&document) {
            run.args(["--exclude-operation-id", &operation]);
        }
        run.env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"));
        run.env("PYTHONDONTWRITEBYTECODE", "1");
        if self.more.contains(&"positive") {
            run.env("FUZZ_VALID", "1")
                .env("FUZZ_TARGET", receiver.url("/fuzzed"))
                .env("FUZZ_PROJECT", &scenario.project);
            run.env("FUZZ_ENDPOINT", objects.kept["endpoint_id"].as_str().unwrap_or_default());
        }
        let mut process = Process::start(self.name, run, &directory)?;
        let status =
            block_in_place(|| process.wait(std::time::Duration::from_secs(seconds()) + SLACK))?;
        let said = logs::tail(process.log(), 400);
        ensure!(status.success(), "{}: {status}\n{said}", self.name);
        let cases = said
            .lines()
            .find_map(|line| line.trim().split_once(" generated, ")?.0.parse::<u64>().ok());
        let cases = cases.with_context(|| format!("no number of cases: {said}"))?;
        eprintln!("{}: {cases} requests", self.name);
        ensure!(cases >= self.extent.least(), "only {cases} requests: {said}");
        Ok(())
    }
}

/// Removes headers, which other tests cover: an invalid request id is replaced, and a short timeout
/// ends in 504, as documented.
fn without_headers(document: &Value) -> Value {
    let mut document = document.clone();
    let in_header = |shared: &Value, parameter: &Value| {
        let name = parameter["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        name.map_or(parameter, |name| &shared[name])["in"] == "header"
    };
    let shared = document["components"]["parameters"].take();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in
        paths.flat_map(|path| path.as_object_mut().into_iter().flat_map(|path| path.values_mut()))
    {
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.retain(|parameter| !in_header(&shared, parameter));
        }
    }
    let kept = shared
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, parameter)| parameter["in"] != "header");
    document["components"]["parameters"] =
        kept.map(|(name, parameter)| (name.clone(), parameter.clone())).collect();
    document
}

/// Returns the streams. They never end, so other tests cover them.
fn streams(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().into_iter().flat_map(|paths| paths.values());
    let operations =
        paths.flat_map(|path| path.as_object().into_iter().flat_map(|path| path.values()));
    operations
        .filter(|operation| {
            !operation["responses"]["200"]["content"]["text/event-stream"].is_null()
        })
        .filter_map(|operation| operation["operationId"].as_str().map(str::to_owned))
        .collect()
}

/// Writes the configuration of schemathesis. Paths name real objects. Deletions get objects of
/// their own, so that the others stay.
fn configuration(document: &Value, token: &str, objects: &Objects, project: &str) -> Value {
    let given = |ids: &Value| -> Value {
        let ids = ids.as_object().into_iter().flatten();
        ids.map(|(name, id)| (format!("path.{name}"), id.clone())).collect()
    };
    let mut doomed = objects.doomed.clone();
    let paths = document["paths"].as_object().into_iter().flatten();
    let deleting = paths.filter(|(_, path)| !path["delete"].is_null()).map(|(path, _)| {
        doomed["project_id"] = objects.kept["project_id"].clone();
        if path.ends_with("{project_id}") {
            doomed["project_id"] = project.into();
        }
        json!({"include-name": format!("DELETE {path}"), "parameters": given(&doomed)})
    });
    let operations: Vec<_> = deleting.collect();
    json!({
        "headers": {"Authorization": format!("Bearer {token}")},
        // The document does not state the limits of every text, so input that it permits may be
        // refused. Deletions get fixed ids, so an object may be gone although it was just created.
        "checks": {"positive_data_acceptance": {"enabled": false},
            "ensure_resource_availability": {"enabled": false}},
        "parameters": given(&objects.kept),
        "operations": operations,
    })
}
