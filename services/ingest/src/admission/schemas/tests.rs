//! Long work is done in turns: one caller takes all that it may, and another project continues.

use std::time::Duration;

use outrider_model::{
    AdmittedEvent, ApiKeyId, EventTypeSpec, Origin, Principal, ProjectSpec, Timestamp,
    principal::Actor,
};
use outrider_shares::Holder;
use outrider_store::{DirectoryOptions, MasterKeys, NewEventType, NewProject, Store, StoreOptions};

use super::{
    cache::{COMPILED_BYTES, COMPILED_FACTOR},
    *,
};

const LONG: Duration = Duration::from_secs(20);
const TYPES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SCHEMA: &str = "{\"type\": \"object\"}";

/// A project whose events must be objects, and a caller in it.
struct Tenant {
    project: Arc<Project>,
    catalog: Arc<Catalog>,
    holder: Holder,
}

struct World {
    validator: Arc<SchemaValidator>,
    greedy: Tenant,
    other: Tenant,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("outrider.db").display());
        let keys = MasterKeys::parse(&MasterKeys::generate_text("test")).unwrap();
        let store = Store::connect(&StoreOptions::new(url, keys)).await.unwrap();
        store.migrate_up().await.unwrap();
        let directory = Directory::new(store.clone(), DirectoryOptions::default());
        let greedy = tenant(&store, &directory, 1).await;
        let other = tenant(&store, &directory, 2).await;
        let validator = Arc::new(SchemaValidator::new(&options, directory));
        Self { validator, greedy, other, _directory: folder }
    }
}

async fn tenant(store: &Store, directory: &Directory, key: u64) -> Tenant {
    let organization = store.create_organization(Actor::System, "o").await.unwrap();
    let principal = Principal::system(organization.id);
    let project = store.create_project(&principal, NewProject::default(), None).await.unwrap().id;
    let reject = |spec: &mut ProjectSpec| spec.schema_validation = SchemaValidation::Reject;
    store.update_project(&principal, project, reject).await.unwrap();
    for event_type in TYPES {
        let schema = Some(SCHEMA.to_owned());
        let entry = NewEventType {
            event_type: event_type.parse().unwrap(),
            spec: EventTypeSpec { schema, ..EventTypeSpec::default() },
        };
        store.create_event_type(&principal, project, entry, None).await.unwrap();
    }
    directory.refresh().await.unwrap();
    let actor = Actor::ApiKey(ApiKeyId::new(Timestamp(0), key));
    Tenant {
        project: directory.project(&principal, project).await.unwrap(),
        catalog: directory.catalog(project).await.unwrap(),
        holder: Holder { actor, ..Holder::within(&principal, project) },
    }
}

/// Checks an event that violates its schema. Returns the reason of the refusal.
async fn checked(
    validator: Arc<SchemaValidator>,
    tenant: &Tenant,
    bytes: usize,
    requester: Requester,
) -> Result<Option<Reason>> {
    checked_as("a", validator, tenant, bytes, requester).await
}

async fn checked_as(
    event_type: &str,
    validator: Arc<SchemaValidator>,
    tenant: &Tenant,
    bytes: usize,
    requester: Requester,
) -> Result<Option<Reason>> {
    let payload = format!("\"{}\"", "x".repeat(bytes)).into();
    let event = AdmittedEvent {
        organization: tenant.project.fixed.organization,
        project: tenant.project.id,
        event_type: event_type.to_owned(),
        content_type: "application/json".to_owned(),
        payload,
        idempotency: None,
        headers: [].into(),
        metadata: [].into(),
        ordering_key: None,
        deliver_at: None,
        origin: Origin::Api { actor: String::new() },
        trace: None,
    };
    let findings = validator.check(&tenant.project, &tenant.catalog, &event, &requester).await?;
    Ok(findings.refusal.map(|error| error.reason))
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it gets its turn soon")
}

/// The greedy caller holds all the slots that it may, and two more of its events wait for them:
/// from a call and from a stream.
async fn takes_turns(turns: impl Fn(&SchemaValidator) -> &Turns, bytes: usize) {
    let World { validator, greedy, other, _directory } = World::new().await;
    let greedy = Arc::new(greedy);
    let turn = turns(&validator).take(greedy.holder).await.unwrap();
    let waiting =
        [Requester::Call(greedy.holder), Requester::Stream(greedy.holder)].map(|requester| {
            let (validator, greedy) = (Arc::clone(&validator), Arc::clone(&greedy));
            tokio::spawn(async move { checked(validator, &greedy, bytes, requester).await })
        });
    in_time(async {
        while turns(&validator).held().1 == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let reason =
        in_time(checked(Arc::clone(&validator), &other, bytes, Requester::Call(other.holder)))
            .await;
    assert_eq!(reason, Ok(Some(Reason::PayloadSchemaViolation)));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    drop(turn);
    for waiting in waiting {
        assert_eq!(in_time(waiting).await.unwrap(), Ok(Some(Reason::PayloadSchemaViolation)));
    }
    assert_eq!(turns(&validator).held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compilations_take_turns() {
    takes_turns(|validator| &validator.cache.compilations, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_validations_take_turns() {
    takes_turns(|validator| &validator.long_validations, 2 * BRIEF_BYTES).await;
}

/// Its caller has used up its share of everything, and others wait for the turn that it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_that_has_its_turn_waits_for_no_other() {
    let World { validator, greedy, other: _, _directory } = World::new().await;
    let _turns = (
        validator.long_validations.take(greedy.holder).await.unwrap(),
        validator.cache.compilations.take(greedy.holder).await.unwrap(),
    );
    for _ in 0..2 {
        let reason =
            in_time(checked(Arc::clone(&validator), &greedy, 2 * BRIEF_BYTES, Requester::InTurn))
                .await;
        assert_eq!(reason, Ok(Some(Reason::PayloadSchemaViolation)));
    }
    assert!(
        validator.cache.compiled.get(&greedy.catalog.get("a").unwrap().id).await.is_some(),
        "its compiled schema is kept"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_refused_when_the_line_is_full_and_a_stream_waits() {
    let World { validator, greedy, other: _, _directory } = World::new().await;
    let greedy = Arc::new(greedy);
    let turn = validator.long_validations.take(greedy.holder).await.unwrap();
    let ask = |requester| {
        let (validator, greedy) = (Arc::clone(&validator), Arc::clone(&greedy));
        tokio::spawn(async move { checked(validator, &greedy, 2 * BRIEF_BYTES, requester).await })
    };
    // A lone key has a quarter of the line.
    let waiting: Vec<_> = (0..LINE / 4).map(|_| ask(Requester::Call(greedy.holder))).collect();
    in_time(async {
        while validator.long_validations.held().1 < LINE / 4 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let refused = in_time(ask(Requester::Call(greedy.holder))).await.unwrap();
    assert_eq!(refused.unwrap_err().reason, Reason::ShareExhausted);
    let stream = ask(Requester::Stream(greedy.holder));
    in_time(async {
        while validator.long_validations.held().1 < LINE / 4 + 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    drop(turn);
    for one in waiting.into_iter().chain([stream]) {
        assert_eq!(in_time(one).await.unwrap(), Ok(Some(Reason::PayloadSchemaViolation)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiled_schemas_are_kept_within_the_share_of_their_project() {
    const ONE: usize = COMPILED_BYTES + COMPILED_FACTOR * SCHEMA.len();
    let World { validator, greedy, other, _directory } =
        World::with(Options { schema_cache_bytes: 8 * ONE as u64, ..Options::default() }).await;
    for event_type in TYPES.into_iter().cycle().take(3 * TYPES.len()) {
        let reason = checked_as(
            event_type,
            Arc::clone(&validator),
            &greedy,
            1,
            Requester::Call(greedy.holder),
        )
        .await;
        assert_eq!(reason, Ok(Some(Reason::PayloadSchemaViolation)), "it is compiled again");
        assert!(validator.cache.memory.held() <= 2 * ONE, "a lone project has a quarter");
    }
    let kept = async |tenant: &Tenant, event_type: &str| {
        validator.cache.compiled.get(&tenant.catalog.get(event_type).unwrap().id).await.is_some()
    };
    checked(Arc::clone(&validator), &other, 1, Requester::Call(other.holder)).await.unwrap();
    checked_as("c", Arc::clone(&validator), &greedy, 1, Requester::Call(greedy.holder))
        .await
        .unwrap();
    assert!(kept(&other, "a").await, "another project finds room");
    assert!(kept(&greedy, "a").await && kept(&greedy, "b").await && !kept(&greedy, "c").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changes_holds_its_part_once() {
    let World { validator, greedy, other: _, _directory } = World::new().await;
    let requester = Requester::Call(greedy.holder);
    let mut entry = greedy.catalog.get("a").unwrap();
    let first = validator.cache.get(&greedy.project, entry, &requester).await.unwrap();
    assert!(
        Arc::ptr_eq(
            &first,
            &validator.cache.get(&greedy.project, entry, &requester).await.unwrap()
        ),
        "it is kept"
    );
    let held = validator.cache.memory.held();
    entry.updated_at = Timestamp(entry.updated_at.0 + 1);
    let second = validator.cache.get(&greedy.project, entry, &requester).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    drop(first);
    validator.cache.compiled.run_pending_tasks().await;
    assert_eq!(validator.cache.memory.held(), held);
}
