//! The verdict, from the answers, the arrivals and the API: nothing is lost, invented or changed,
//! no more is sent twice than was in flight, and the history of every delivery is correct.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use outrider_tests::wait_until;
use serde_json::Value;

use super::ledger::{Book, Entry, Fate};
use crate::{
    load::all_settled,
    scenario::{Scenario, Target, number, text},
    verify,
};

/// How long to wait for events before they count as lost.
const WAIT: Duration = Duration::from_secs(60);

/// An endpoint, and how many requests a delivery to it needs without a fault.
#[derive(Debug, Clone)]
pub struct Goal {
    pub target: Target,
    pub requests: usize,
}

/// The bounds of the verdict.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The end of the last fault.
    pub fault_ended: Instant,
    /// The time after that, and after its acceptance, within which every event must have arrived,
    /// and been sent again where it was first refused.
    pub recovery: Duration,
    /// How many requests may have been sent twice without a record of the first.
    pub excess: usize,
    /// How many requests may be recorded as unanswered and then sent again.
    pub cut: usize,
    /// The shortest time between a request and its retry. `None` if something may have been sent
    /// twice.
    pub first_wait: Option<Duration>,
    /// Whether callers may get no answer, or the error of their library for a broken connection.
    pub callers_harmed: bool,
}

/// Judges the case. Returns a line with the figures, or an error that names what is wrong.
pub async fn judge(
    scenario: &Scenario,
    goals: &[Goal],
    book: &Book,
    terms: Terms,
) -> Result<String> {
    let accepted = answered(book, terms.callers_harmed)?;
    let mut worst = Duration::ZERO;
    let mut excess = Vec::new();
    for goal in goals {
        let path = &goal.target.path;
        wait_until(&format!("all that was accepted arrived on {path}"), WAIT, async || {
            (scenario.receiver.distinct(path) >= accepted.len()).then_some(())
        })
        .await
        .with_context(|| format!("LOST: {:?}", missing(scenario, path, &accepted)))?;
    }
    if let Err(error) = all_settled(scenario, WAIT.max(terms.recovery)).await {
        let pending = all(scenario, "deliveries")
            .await?
            .into_iter()
            .filter(|row| row["status"] == "DELIVERY_STATUS_PENDING");
        return Err(error.context(format!("{:?}", pending.collect::<Vec<_>>())));
    }
    for goal in goals {
        worst = worst.max(arrivals(scenario, goal, &accepted, terms)?);
        let path = &goal.target.path;
        excess.push(
            scenario
                .receiver
                .counts(path)
                .values()
                .map(|count| count.saturating_sub(goal.requests))
                .sum::<usize>(),
        );
    }
    let history = History::read(scenario).await?;
    history.check(goals, &accepted)?;
    let repeated: usize = excess.iter().sum();
    // A request without an answer may have arrived. It is recorded as an attempt, or as resent
    // within one.
    let unanswered = history.unanswered() + history.resent();
    ensure!(
        unanswered <= terms.cut,
        "{unanswered} requests got no answer; at most {} may have been cut off",
        terms.cut
    );
    let most = terms.excess + unanswered;
    ensure!(
        repeated <= most,
        "{excess:?} requests too many; at most {} were in flight, {unanswered} unanswered",
        terms.excess
    );
    // Two records with one number mean that the request was sent twice.
    ensure!(
        history.repeated_numbers() <= terms.excess,
        "{} attempts have a number twice",
        history.repeated_numbers()
    );
    Ok(format!(
        "{} events, {repeated} duplicates of at most {} + {unanswered}, slowest {:.1}s; {:?}",
        accepted.len(),
        terms.excess,
        worst.as_secs_f64(),
        book.answers()
    ))
}

type Accepted = HashMap<String, Entry>;

/// Returns the accepted events by id. Asserts that each event was answered, none was refused, and
/// no two share an id.
fn answered(book: &Book, callers_harmed: bool) -> Result<Accepted> {
    let entries = book.entries();
    let count = entries.len();
    ensure!(count > 0, "nothing was published");
    let mut accepted = HashMap::with_capacity(count);
    for (number, entry) in entries {
        match &entry.fate {
            Fate::Accepted(id) => {
                let former = accepted.insert(id.clone(), entry.clone());
                ensure!(former.is_none(), "{id} was given to {number} and to another event");
            }
            Fate::Unknown(last) => anyhow::bail!("event {number} was never answered: {last}"),
            Fate::Refused(why) => anyhow::bail!("event {number} was refused: {why}"),
        }
    }
    // Whatever goes wrong inside, callers are told to try again, and when.
    let never = [
        "REST 500",
        "REST 501",
        "REST 502",
        "REST 504",
        "REST 505",
        "REST 429 without",
        "REST 503 without",
    ];
    // gRPC libraries report broken connections with one of these codes.
    let unharmed = [
        "REST no answer",
        "gRPC Internal",
        "gRPC Unknown",
        "gRPC Cancelled",
        "gRPC DeadlineExceeded",
    ];
    for wrong in never.iter().chain(if callers_harmed { &[][..] } else { &unharmed }) {
        ensure!(
            book.answered(wrong) == 0,
            "answers of a kind that must not be: {:?}",
            book.answers()
        );
    }
    Ok(accepted)
}

fn missing(scenario: &Scenario, path: &str, accepted: &Accepted) -> Vec<String> {
    let counts = scenario.receiver.counts(path);
    accepted.keys().filter(|id| !counts.contains_key(*id)).take(5).cloned().collect()
}

/// Asserts that exactly the accepted events arrived, to the byte, with valid signatures, and in
/// time. Returns the longest time.
fn arrivals(
    scenario: &Scenario,
    goal: &Goal,
    accepted: &Accepted,
    terms: Terms,
) -> Result<Duration> {
    let mut times: HashMap<String, Vec<Instant>> = HashMap::new();
    for received in scenario.receiver.received(&goal.target.path) {
        let id = received.id().to_owned();
        let entry =
            accepted.get(&id).with_context(|| format!("{id} was delivered and never accepted"))?;
        ensure!(received.body == entry.body.as_bytes(), "{id} has another body than was published");
        verify::genuine(&received, &goal.target.secret)?;
        times.entry(id).or_default().push(received.at);
    }
    let mut worst = Duration::ZERO;
    for (id, entry) in accepted {
        let times = times.get(id).with_context(|| format!("LOST: {id}"))?;
        if let (Some(wait), [first, second]) = (terms.first_wait, times.as_slice()) {
            let waited = second.saturating_duration_since(*first);
            ensure!(waited >= wait, "{id} was repeated after {waited:?}, before it was due");
        }
        let arrived = times
            .get(goal.requests - 1)
            .with_context(|| format!("{id} came {} times only", times.len()))?;
        let due = entry.answered_at.unwrap_or(terms.fault_ended).max(terms.fault_ended);
        worst = worst.max(arrived.saturating_duration_since(due));
    }
    ensure!(
        worst <= terms.recovery,
        "a delivery came {worst:?} after the fault; at most {:?} are allowed",
        terms.recovery
    );
    Ok(worst)
}

/// The deliveries and attempts of a project, from the API.
struct History {
    events: HashSet<String>,
    deliveries: Vec<Value>,
    /// Attempts by delivery.
    attempts: HashMap<String, Vec<Value>>,
}

impl History {
    async fn read(scenario: &Scenario) -> Result<Self> {
        let mut attempts: HashMap<String, Vec<Value>> = HashMap::new();
        for attempt in all(scenario, "attempts").await? {
            attempts.entry(text(&attempt, "delivery_id")?).or_default().push(attempt);
        }
        let events = all(scenario, "events").await?;
        Ok(Self {
            events: events.iter().map(|event| text(event, "event_id")).collect::<Result<_>>()?,
            deliveries: all(scenario, "deliveries").await?,
            attempts,
        })
    }

    /// Asserts that each event has one delivery per endpoint, which is delivered and has consistent
    /// attempts.
    fn check(&self, goals: &[Goal], accepted: &Accepted) -> Result<()> {
        ensure!(
            self.events.len() == accepted.len()
                && accepted.keys().all(|id| self.events.contains(id)),
            "{} events are stored, {} were accepted",
            self.events.len(),
            accepted.len()
        );
        let mut places = HashSet::new();
        for delivery in &self.deliveries {
            let place = (text(delivery, "event_id")?, text(delivery, "endpoint_id")?);
            ensure!(
                accepted.contains_key(&place.0),
                "a delivery of what was never accepted: {delivery}"
            );
            if goals.iter().any(|goal| goal.target.id == place.1) {
                ensure!(
                    places.insert(place),
                    "the second delivery of an event to an endpoint: {delivery}"
                );
                self.check_delivery(delivery).with_context(|| format!("{delivery}"))?;
            } else {
                // Its endpoint was deleted in the meantime.
                let ended =
                    ["DELIVERY_STATUS_CANCELLED", "DELIVERY_STATUS_DELIVERED"].map(Value::from);
                ensure!(ended.contains(&delivery["status"]), "it has not ended: {delivery}");
            }
        }
        let wanted = accepted.len() * goals.len();
        ensure!(places.len() == wanted, "{} deliveries, there must be {wanted}", places.len());
        Ok(())
    }

    fn check_delivery(&self, delivery: &Value) -> Result<()> {
        ensure!(delivery["status"] == "DELIVERY_STATUS_DELIVERED", "it is not delivered");
        let attempts =
            self.attempts.get(&text(delivery, "delivery_id")?).context("it has no attempts")?;
        let ids: BTreeSet<String> =
            attempts.iter().map(|attempt| text(attempt, "attempt_id")).collect::<Result<_>>()?;
        ensure!(ids.len() == attempts.len(), "an attempt is there twice");
        let numbers: BTreeSet<u64> =
            attempts.iter().map(|attempt| number(attempt, "number")).collect();
        let highest = numbers.last().copied().unwrap_or(0);
        ensure!(numbers.iter().copied().eq(1..=highest), "its attempts are {numbers:?}");
        let count = number(delivery, "attempt_count");
        ensure!((1..=highest).contains(&count), "it counts {count} attempts of {highest}");
        let succeeded = |attempt: &&Value| attempt["outcome"] == "ATTEMPT_OUTCOME_SUCCEEDED";
        ensure!(attempts.iter().any(|attempt| succeeded(&attempt)), "no attempt succeeded");
        // A retry follows a failure, never a success.
        let first = attempts
            .iter()
            .filter(succeeded)
            .map(|attempt| number(attempt, "number"))
            .min()
            .unwrap_or(0);
        ensure!(highest <= first + 1, "attempt {highest} follows the success of {first}");
        Ok(())
    }

    /// Returns the number of attempts without an answer.
    fn unanswered(&self) -> usize {
        self.attempts
            .values()
            .flatten()
            .filter(|attempt| number(attempt, "status_code") == 0)
            .count()
    }

    /// Returns the number of attempts whose request was resent.
    fn resent(&self) -> usize {
        self.attempts.values().flatten().filter(|attempt| attempt["resent"] == true).count()
    }

    /// Returns the number of attempts that share their number with another of their delivery,
    /// because a job was done twice.
    fn repeated_numbers(&self) -> usize {
        let repeated = self.attempts.values().map(|attempts| {
            let mut counts = BTreeMap::<u64, usize>::new();
            for attempt in attempts {
                *counts.entry(number(attempt, "number")).or_default() += 1;
            }
            counts.values().map(|count| count - 1).sum::<usize>()
        });
        repeated.sum()
    }
}

/// Returns all resources of one kind in a project, by page.
async fn all(scenario: &Scenario, kind: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = scenario
            .rest
            .get(&scenario.path(&format!("{kind}?page_size=200&page_token={token}")))
            .await?;
        found.extend(page[kind].as_array().cloned().unwrap_or_default());
        match page["next_page_token"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => return Ok(found),
        }
    }
}
