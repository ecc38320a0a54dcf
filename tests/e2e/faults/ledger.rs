//! The ledger client publishes steadily over REST and gRPC, repeats each request with its key until
//! it is answered, and records every answer. Without keys, it sends each request once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use http::Method;
use outrider_proto::ingest::{NewEvent, PublishEventRequest};
use outrider_tests::client::{Grpc, Rest};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tonic::Code;

use crate::scenario::text;

/// How long a caller repeats the request for one event.
const PATIENCE: Duration = Duration::from_secs(90);
/// The pause between the first two requests for one event, and the longest between later ones.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// The longest filler: less than a payload may have, in bytes.
const LONGEST: usize = 1_000_000;

/// How many answers of one kind are recorded in the timeline.
const NOTED: usize = 5;

/// The outcome of an event, as far as its publisher knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Requested and not answered yet, with the latest failure.
    Unknown(String),
    /// Accepted with this id.
    Accepted(String),
    /// Refused permanently.
    Refused(String),
}

/// An event with what its publisher knows about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The bytes that endpoints must get.
    pub body: String,
    pub fate: Fate,
    /// The time of the first request.
    pub asked_at: Instant,
    pub answered_at: Option<Instant>,
}

/// Everything that was published and answered, with a timeline.
#[derive(Debug)]
pub struct Book {
    begin: Instant,
    entries: Mutex<BTreeMap<usize, Entry>>,
    /// The number of answers by kind.
    answers: Mutex<BTreeMap<String, usize>>,
    timeline: Mutex<Vec<(Duration, String)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            entries: Mutex::default(),
            answers: Mutex::default(),
            timeline: Mutex::default(),
        }
    }

    /// Adds to the timeline.
    pub fn note(&self, what: impl Into<String>) {
        locked(&self.timeline).push((self.begin.elapsed(), what.into()));
    }

    /// Returns the timeline, one line for each entry.
    pub fn timeline(&self) -> String {
        locked(&self.timeline)
            .iter()
            .map(|(at, what)| format!("{:9.3}s {what}\n", at.as_secs_f64()))
            .collect()
    }

    /// Returns a copy of all entries.
    pub fn entries(&self) -> BTreeMap<usize, Entry> {
        locked(&self.entries).clone()
    }

    /// An entry.
    pub fn entry(&self, number: usize) -> Option<Entry> {
        locked(&self.entries).get(&number).cloned()
    }

    /// Removes an entry that is no longer needed.
    pub fn forget(&self, number: usize) {
        locked(&self.entries).remove(&number);
    }

    /// Returns the number of answers by kind, such as `REST 503`.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        locked(&self.answers).clone()
    }

    /// Returns how many answers begin with this text.
    pub fn answered(&self, begin: &str) -> usize {
        locked(&self.answers)
            .iter()
            .filter(|(answer, _)| answer.starts_with(begin))
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns how many events are accepted.
    pub fn accepted(&self) -> usize {
        locked(&self.entries)
            .values()
            .filter(|entry| matches!(entry.fate, Fate::Accepted(_)))
            .count()
    }

    fn open(&self, number: usize, body: String) {
        let fate = Fate::Unknown("not asked".to_owned());
        locked(&self.entries)
            .insert(number, Entry { body, fate, asked_at: Instant::now(), answered_at: None });
    }

    /// Records an answer. Returns whether it is final.
    fn record(&self, number: usize, answer: Answer) -> bool {
        let known = !matches!(answer.fate, Fate::Unknown(_));
        let mut answers = locked(&self.answers);
        let count = answers.entry(answer.kind.clone()).or_default();
        *count += 1;
        // The first answers of each kind suffice.
        if let Fate::Unknown(why) | Fate::Refused(why) = &answer.fate
            && *count <= NOTED
        {
            self.note(format!(
                "event {number}: {}: {}",
                answer.kind,
                why.chars().take(200).collect::<String>()
            ));
        }
        drop(answers);
        if let Some(entry) = locked(&self.entries).get_mut(&number) {
            entry.fate = answer.fate;
            entry.answered_at = known.then(Instant::now);
        }
        known
    }
}

/// An answer, or the lack of one.
struct Answer {
    /// The kind for counting: `REST 503`, `gRPC Unavailable`, `REST no answer`.
    kind: String,
    fate: Fate,
}

/// A way to publish.
#[derive(Clone)]
pub enum Door {
    Rest(Rest),
    Grpc(Grpc),
}

impl Door {
    async fn publish(&self, project: &str, key: &str, body: &str) -> Answer {
        match self {
            Self::Rest(rest) => by_rest(rest, project, key, body).await,
            Self::Grpc(grpc) => by_grpc(grpc, project, key, body).await,
        }
    }
}

async fn by_rest(rest: &Rest, project: &str, key: &str, body: &str) -> Answer {
    // Written as text, so that the payload is exactly this text.
    let event = format!(r#"{{"event_type": "load", "idempotency_key": "{key}", "data": {body}}}"#);
    let reply =
        match rest.send(Method::POST, &format!("/v1/projects/{project}/events"), event).await {
            Ok(reply) => reply,
            Err(error) => {
                return Answer {
                    kind: "REST no answer".to_owned(),
                    fate: Fate::Unknown(format!("{error:#}")),
                };
            }
        };
    let status = reply.status.as_u16();
    let mut kind = format!("REST {status}");
    let said = || format!("{status}: {}", String::from_utf8_lossy(&reply.body));
    let fate = match status {
        200 => match reply.json().and_then(|reply| text(&reply, "event_id")) {
            Ok(id) => Fate::Accepted(id),
            Err(error) => Fate::Refused(format!("200 without an id: {error:#}")),
        },
        429 | 500.. => {
            // Callers that may try again are told when.
            if [429, 503].contains(&status) && !reply.headers.contains_key("retry-after") {
                kind.push_str(" without Retry-After");
            }
            Fate::Unknown(said())
        }
        _ => Fate::Refused(said()),
    };
    Answer { kind, fate }
}

async fn by_grpc(grpc: &Grpc, project: &str, key: &str, body: &str) -> Answer {
    let event = NewEvent {
        event_type: "load".to_owned(),
        payload: body.to_owned().into(),
        idempotency_key: key.to_owned(),
        ..NewEvent::default()
    };
    let request = PublishEventRequest { project_id: project.to_owned(), event: Some(event) };
    let mut answer = grpc.ingest().publish_event(request.clone()).await;
    for _ in 0..2 {
        if answer.as_ref().is_err_and(never_processed) {
            answer = grpc.ingest().publish_event(request.clone()).await;
        }
    }
    match answer {
        Ok(answer) => Answer {
            kind: "gRPC Ok".to_owned(),
            fate: Fate::Accepted(answer.into_inner().event_id),
        },
        Err(status) => {
            let said = format!("{:?}: {}", status.code(), status.message());
            // tonic also reports broken connections with these codes.
            let unknown = [
                Code::Unavailable,
                Code::ResourceExhausted,
                Code::DeadlineExceeded,
                Code::Unknown,
                Code::Cancelled,
                Code::Internal,
                Code::Aborted,
            ];
            let fate = if unknown.contains(&status.code()) {
                Fate::Unknown(said)
            } else {
                Fate::Refused(said)
            };
            Answer { kind: format!("gRPC {:?}", status.code()), fate }
        }
    }
}

/// Whether the call was never written, or was refused by its stream number when the server
/// announced its end. gRPC libraries repeat such calls by themselves, as gRPC specifies
/// (transparent retries); tonic does not.
fn never_processed(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let unsent = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let refused = error.downcast_ref::<h2::Error>();
        let orderly = |error: &h2::Error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        };
        if unsent || refused.is_some_and(orderly) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How much is published.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub callers: usize,
    /// The pause between the events of one caller, which also waits for the answer.
    pub pause: Duration,
    /// The longest filler of a body. One body in twenty has twenty times as much, up to the limit.
    pub filler: usize,
    /// Whether events have idempotency keys. Without one, each event is requested once, so nothing
    /// hides a duplicate.
    pub keyed: bool,
}

/// Running callers.
pub struct Traffic {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts callers, which use the ways to publish in turn.
    pub fn start(book: &Arc<Book>, project: &str, doors: &[Door], pace: Pace, seed: u64) -> Self {
        let (stop, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for (caller, door) in (0..pace.callers).zip(doors.iter().cycle()) {
            let (book, door, project) = (Arc::clone(book), door.clone(), project.to_owned());
            let (stop, numbers) = (Arc::clone(&stop), Arc::clone(&numbers));
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(caller as u64));
            callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let long = if random.random_ratio(1, 20) { 20 } else { 1 };
                    let length = random.random_range(0..=(pace.filler * long).min(LONGEST));
                    let body =
                        format!(r#"{{"number": {number}, "filler": "{}"}}"#, "x".repeat(length));
                    publish_until_answered(&book, &door, &project, number, body, pace.keyed).await;
                    tokio::time::sleep(pace.pause.mul_f64(random.random_range(0.5..1.5))).await;
                }
            });
        }
        Self { callers, stop }
    }

    /// Begins no further event, and waits for the answers in flight.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.context("a caller of the ledger failed")?;
        }
        Ok(())
    }
}

/// Publishes one event. With a key, repeats the request until there is an answer; without one,
/// sends it once.
pub async fn publish_until_answered(
    book: &Book,
    door: &Door,
    project: &str,
    number: usize,
    body: String,
    keyed: bool,
) {
    book.open(number, body.clone());
    let (begin, key) =
        (Instant::now(), if keyed { format!("ledger-{number}") } else { String::new() });
    let mut pause = PAUSES.0;
    while !book.record(number, door.publish(project, &key, &body).await)
        && keyed
        && begin.elapsed() < PATIENCE
    {
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSES.1);
    }
}

/// Publishes this many events at the same time, each until it is answered.
pub async fn publish_some(
    book: &Arc<Book>,
    door: &Door,
    project: &str,
    numbers: std::ops::Range<usize>,
) {
    let events = numbers.map(|number| async move {
        publish_until_answered(
            book,
            door,
            project,
            number,
            format!(r#"{{"number": {number}}}"#),
            true,
        )
        .await;
    });
    futures::future::join_all(events).await;
}
