//! Ids that are already taken: creating an object with such an id tells a caller who does not reach
//! the object no more than any other call with that id.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use http::Method;
use outrider_tests::{
    Shape,
    client::{Reply, Rest, public_methods},
    cluster::Options,
};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{rows::Ids, world::missing};
use crate::scenario::{self, run_with_shares, text};

/// The methods that take an id: their collection in a project or at the top, and a body without the
/// id.
const NOUNS: [(&str, &str, &str); 3] = [
    ("CreateProject", "", "project_id"),
    ("CreateEndpoint", "endpoints", "endpoint_id"),
    ("CreateSubscription", "subscriptions", "subscription_id"),
];
/// Methods whose objects get their ids from the server, or have names that are unique only within a
/// project.
const WITHOUT_IDS: [&str; 2] = ["CreateApiKey", "CreateEventType"];

/// A caller with a project and an endpoint.
struct Party {
    rest: Rest,
    project: String,
    endpoint: String,
}

impl Party {
    async fn new(rest: Rest) -> Result<Self> {
        let project =
            text(&rest.post("/v1/projects", &json!({"name": "Of a party"})).await?, "project_id")?;
        let endpoint = json!({"http": {"url": "https://example.com/"}});
        let made = rest.post(&format!("/v1/projects/{project}/endpoints"), &endpoint).await?;
        let endpoint = text(&made["endpoint"], "endpoint_id")?;
        Ok(Self { rest, project, endpoint })
    }

    fn collection(&self, noun: &str) -> String {
        if noun.is_empty() {
            "/v1/projects".to_owned()
        } else {
            format!("/v1/projects/{}/{noun}", self.project)
        }
    }

    async fn create(&self, (_, noun, field): (&str, &str, &str), id: &str) -> Result<Reply> {
        let mut body = match noun {
            "" => json!({"name": "n"}),
            "endpoints" => json!({"http": {"url": "https://example.com/"}}),
            _ => json!({"endpoint_id": self.endpoint, "event_types": ["a"]}),
        };
        body[field] = id.into();
        self.rest.send(Method::POST, &self.collection(noun), body.to_string()).await
    }

    /// Returns an unused id of the noun.
    async fn fresh(&self, noun: (&str, &str, &str), more: &str) -> Result<String> {
        let made = match noun.1 {
            "endpoints" => self.endpoint.clone(),
            "" => self.project.clone(),
            _ => text(&self.create_new_subscription().await?, noun.2)?,
        };
        let ids = missing(&Ids::from([("id", made)]), &[]);
        // The letters are those of the alphabet of ids, so that several calls get different ids.
        Ok(format!("{}{more}", &ids["id"][..ids["id"].len() - more.len()]))
    }

    async fn create_new_subscription(&self) -> Result<Value> {
        let body = json!({"endpoint_id": self.endpoint, "event_types": ["a"]});
        self.rest.post(&self.collection("subscriptions"), &body).await
    }
}

/// Returns an error without the parts that differ in every request.
fn told(reply: &Reply) -> Result<Value> {
    let mut error = reply.json()?["error"].clone();
    error.as_object_mut().context("no error")?.remove("request_id");
    Ok(error)
}

async fn taken_ids_tell_nothing(shape: Shape) -> Result<()> {
    let outrider = block_in_place(|| scenario::start(shape, &Options::default(), None))?;
    let other = block_in_place(|| outrider.another_organization())?;
    let owner = Party::new(Rest::new(&outrider.url(), Some(&outrider.token))).await?;
    let stranger = Party::new(owner.rest.with_token(Some(&other.token))).await?;
    for noun in NOUNS {
        let id = owner.fresh(noun, "0g").await?;
        let made = owner.create(noun, &id).await?;
        ensure!(made.status == 200, "{noun:?}: {made:?}");
        let again = owner.create(noun, &id).await?;
        ensure!(again.status == 409 && again.reason() == "ALREADY_EXISTS", "{noun:?}: {again:?}");
        let refused = stranger.create(noun, &id).await?;
        let path = format!("{}/{id}", stranger.collection(noun.1));
        for method in [Method::GET, Method::DELETE] {
            let same = stranger.rest.send(method.clone(), &path, "").await?;
            ensure!(
                refused.status == 404 && told(&refused)? == told(&same)?,
                "{method} {noun:?}: {refused:?} and {same:?}"
            );
        }
        concurrently(&owner, &stranger, noun).await.with_context(|| format!("{noun:?} at once"))?;
    }
    Ok(())
}

/// Two callers want the same id at the same time, and one of them gets it.
async fn concurrently(owner: &Party, stranger: &Party, noun: (&str, &str, &str)) -> Result<()> {
    for round in ["0h", "0j", "0k"] {
        let id = owner.fresh(noun, round).await?;
        let parties: Vec<&Party> = [owner, stranger].into_iter().cycle().take(8).collect();
        let replies = join_all(parties.iter().map(|party| party.create(noun, &id))).await;
        let replies: Vec<Reply> = replies.into_iter().collect::<Result<_>>()?;
        let won: Vec<usize> =
            (0..replies.len()).filter(|index| replies[*index].status == 200).collect();
        let [winner] = won.as_slice() else {
            anyhow::bail!("{} of them got {id}: {replies:?}", won.len())
        };
        for (index, reply) in replies.iter().enumerate().filter(|(index, _)| index != winner) {
            let expected =
                if index % 2 == winner % 2 { (409, "ALREADY_EXISTS") } else { (404, "NOT_FOUND") };
            ensure!(
                (reply.status.as_u16(), reply.reason().as_str()) == expected,
                "{index} of {winner}: {reply:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_method_that_creates_is_looked_at() {
    let creating =
        public_methods().into_iter().filter(|method| method.name().starts_with("Create"));
    for method in creating {
        let known = NOUNS.iter().any(|noun| noun.0 == method.name())
            || WITHOUT_IDS.contains(&method.name());
        assert!(known, "{} is in neither list of taken.rs", method.full_name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_ids_tell_nothing_on_sqlite() {
    run_with_shares(1, async || taken_ids_tell_nothing(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_ids_tell_nothing_on_postgres() {
    run_with_shares(1, async || taken_ids_tell_nothing(Shape::Postgres).await).await;
}
