//! What takes long is done in turns: one caller takes all it can, and another project goes on.

use std::time::Duration;

use outrider_model::{ApiKeyId, Principal, Reason, principal::Actor};
use outrider_store::{
    DirectoryOptions, MasterKeys, NewEventType, NewProject, ProjectChange, Store, StoreOptions,
};

use super::*;

const LONG: Duration = Duration::from_secs(20);
const TYPES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SCHEMA: &str = "{\"type\": \"object\"}";

/// A project whose events must be objects, and a caller in it.
struct Tenant {
    project: Arc<Project>,
    catalogue: Arc<Catalogue>,
    holder: Holder,
}

struct World {
    judge: Arc<Judge>,
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
        let judge = Arc::new(Judge::new(&options, directory));
        Self { judge, greedy, other, _directory: folder }
    }
}

async fn tenant(store: &Store, directory: &Directory, key: u64) -> Tenant {
    let organization = store.create_organization(Actor::System, "o").await.unwrap();
    let principal = Principal::system(organization.id);
    let project = store.create_project(&principal, NewProject::default(), None).await.unwrap().id;
    let reject = ProjectChange {
        schema_validation: Some(SchemaValidation::Reject),
        ..ProjectChange::default()
    };
    store.update_project(&principal, project, reject).await.unwrap();
    for event_type in TYPES {
        let schema = Some(SCHEMA.to_owned());
        let entry = NewEventType {
            event_type: event_type.parse().unwrap(),
            description: String::new(),
            schema,
            deprecated: false,
        };
        store.create_event_type(&principal, project, entry, None).await.unwrap();
    }
    directory.refresh().await.unwrap();
    let actor = Actor::ApiKey(ApiKeyId::new(Timestamp(0), key));
    Tenant {
        project: directory.project(&principal, project).await.unwrap(),
        catalogue: directory.catalogue(project).await.unwrap(),
        holder: Holder { actor, ..Holder::within(&principal, project) },
    }
}

/// What an event is told that does not fit.
async fn judged(
    judge: Arc<Judge>,
    tenant: &Tenant,
    bytes: usize,
    asker: Asker,
) -> Result<Option<Reason>> {
    judged_as("a", judge, tenant, bytes, asker).await
}

async fn judged_as(
    event_type: &str,
    judge: Arc<Judge>,
    tenant: &Tenant,
    bytes: usize,
    asker: Asker,
) -> Result<Option<Reason>> {
    let payload = format!("\"{}\"", "x".repeat(bytes)).into();
    let event = AcceptEvent {
        event_type: event_type.to_owned(),
        content_type: "application/json".to_owned(),
        payload,
        ..AcceptEvent::default()
    };
    let judgement = judge.judge(&tenant.project, &tenant.catalogue, &event, &asker).await?;
    Ok(judgement.refusal.map(|error| error.reason))
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it is its turn soon")
}

/// The greedy caller has all that it may of some places, and one more of its events waits for them:
/// as a call and as a stream.
async fn takes_turns(places: impl Fn(&Judge) -> &Turns, bytes: usize) {
    let World { judge, greedy, other, _directory } = World::new().await;
    let greedy = Arc::new(greedy);
    let turn = places(&judge).take(greedy.holder).await.unwrap();
    let waiting = [Asker::Call(greedy.holder), Asker::Stream(greedy.holder)].map(|asker| {
        let (judge, greedy) = (Arc::clone(&judge), Arc::clone(&greedy));
        tokio::spawn(async move { judged(judge, &greedy, bytes, asker).await })
    });
    in_time(async {
        while places(&judge).held().1 == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let told = in_time(judged(Arc::clone(&judge), &other, bytes, Asker::Call(other.holder))).await;
    assert_eq!(told, Ok(Some(Reason::PayloadSchemaViolation)));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    drop(turn);
    for waiting in waiting {
        assert_eq!(in_time(waiting).await.unwrap(), Ok(Some(Reason::PayloadSchemaViolation)));
    }
    assert_eq!(places(&judge).held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compilations_take_turns() {
    takes_turns(|judge| &judge.compilations, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_validations_take_turns() {
    takes_turns(|judge| &judge.lengthy, 2 * BRIEF_BYTES).await;
}

/// Its caller has used up its share of everything, and others wait for the turn that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_that_has_its_turn_waits_for_no_other() {
    let World { judge, greedy, other: _, _directory } = World::new().await;
    let _turns = (
        judge.lengthy.take(greedy.holder).await.unwrap(),
        judge.compilations.take(greedy.holder).await.unwrap(),
    );
    for _ in 0..2 {
        let told =
            in_time(judged(Arc::clone(&judge), &greedy, 2 * BRIEF_BYTES, Asker::InTurn)).await;
        assert_eq!(told, Ok(Some(Reason::PayloadSchemaViolation)));
    }
    assert!(
        judge.compiled.get(&greedy.catalogue.get("a").unwrap().id).await.is_some(),
        "what it compiled is kept"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_refused_when_the_line_is_full_and_a_stream_waits() {
    let World { judge, greedy, other: _, _directory } = World::new().await;
    let greedy = Arc::new(greedy);
    let turn = judge.lengthy.take(greedy.holder).await.unwrap();
    let ask = |asker| {
        let (judge, greedy) = (Arc::clone(&judge), Arc::clone(&greedy));
        tokio::spawn(async move { judged(judge, &greedy, 2 * BRIEF_BYTES, asker).await })
    };
    // A lone key has a quarter of the line.
    let waiting: Vec<_> = (0..LINE / 4).map(|_| ask(Asker::Call(greedy.holder))).collect();
    in_time(async {
        while judge.lengthy.held().1 < LINE / 4 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let refused = in_time(ask(Asker::Call(greedy.holder))).await.unwrap();
    assert_eq!(refused.unwrap_err().reason, Reason::ShareExhausted);
    let stream = ask(Asker::Stream(greedy.holder));
    in_time(async {
        while judge.lengthy.held().1 < LINE / 4 + 1 {
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
    let World { judge, greedy, other, _directory } =
        World::with(Options { schema_cache_bytes: 8 * ONE as u64, ..Options::default() }).await;
    for event_type in TYPES.into_iter().cycle().take(3 * TYPES.len()) {
        let told =
            judged_as(event_type, Arc::clone(&judge), &greedy, 1, Asker::Call(greedy.holder)).await;
        assert_eq!(told, Ok(Some(Reason::PayloadSchemaViolation)), "it is compiled again");
        assert!(judge.memory.held() <= 2 * ONE, "a lone project has a quarter");
    }
    let kept = async |tenant: &Tenant, event_type: &str| {
        judge.compiled.get(&tenant.catalogue.get(event_type).unwrap().id).await.is_some()
    };
    judged(Arc::clone(&judge), &other, 1, Asker::Call(other.holder)).await.unwrap();
    judged_as("c", Arc::clone(&judge), &greedy, 1, Asker::Call(greedy.holder)).await.unwrap();
    assert!(kept(&other, "a").await, "another project finds room");
    assert!(kept(&greedy, "a").await && kept(&greedy, "b").await && !kept(&greedy, "c").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changes_holds_its_part_once() {
    let World { judge, greedy, other: _, _directory } = World::new().await;
    let asker = Asker::Call(greedy.holder);
    let mut entry = greedy.catalogue.get("a").unwrap();
    let first = judge.compiled(&greedy.project, entry, &asker).await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &judge.compiled(&greedy.project, entry, &asker).await.unwrap()),
        "it is kept"
    );
    let held = judge.memory.held();
    entry.updated_at = Timestamp(entry.updated_at.0 + 1);
    let second = judge.compiled(&greedy.project, entry, &asker).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    drop(first);
    judge.compiled.run_pending_tasks().await;
    assert_eq!(judge.memory.held(), held);
}
