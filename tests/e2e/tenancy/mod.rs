//! Calls every public method as every kind of caller, with each single scope, over gRPC and, if the
//! method has REST, over REST too. An object out of the caller's reach is answered like one that
//! does not exist, discloses no more than that, and does not change.

mod rows;
mod taken;
mod verdict;
mod world;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Receiver, Shape,
    client::{Dynamic, public_methods, rest_requests, scope},
    cluster::Options,
};
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::task::block_in_place;

use self::{
    rows::{Expected, Ids, Row, Who, rows},
    verdict::Verdict,
    world::{World, missing, scopes, whole_list},
};
use crate::{
    findings::Findings,
    scenario::{self, run_with_shares},
};

/// How long an accepted stream may be silent.
const LET_IN: Duration = Duration::from_millis(300);
/// How long the refusal of a stream may take.
const REFUSED: Duration = Duration::from_secs(20);

const ADMIN: &str = "SCOPE_ADMIN";

/// Returns the methods with their rows. Fails with the names of methods without a row, and of rows
/// without a method.
fn matrix() -> Result<Vec<(MethodDescriptor, Row)>> {
    let mut rows = rows();
    let (mut found, mut without) = (Vec::new(), Vec::new());
    for method in public_methods() {
        let name = format!("{}/{}", method.parent_service().name(), method.name());
        match rows.iter().position(|row| row.method == name) {
            Some(index) => found.push((method, rows.swap_remove(index))),
            None => without.push(name),
        }
    }
    ensure!(
        without.is_empty(),
        "methods without a row in tests/e2e/tenancy/rows.rs: {}",
        without.join(", ")
    );
    ensure!(rows.is_empty(), "rows without a method: {rows:?}");
    Ok(found)
}

#[test]
fn every_public_method_has_a_row() {
    assert!(matrix().unwrap().len() > 30);
}

/// One caller with one scope.
#[derive(Debug, Clone, Copy)]
struct Caller<'a> {
    who: Who,
    scope: &'a str,
}

struct Matrix {
    grpc: Dynamic,
    world: World,
    methods: Vec<(MethodDescriptor, Row)>,
    findings: Findings,
}

async fn tenants_are_apart(shape: Shape) -> Result<()> {
    let outrider = block_in_place(|| scenario::start(shape, &Options::default(), None))?;
    let receiver = Receiver::start().await?;
    let work = async {
        let world = World::new(&outrider, &receiver).await?;
        let grpc = Dynamic::connect(&outrider.url()).await?;
        let mut matrix = Matrix { grpc, world, methods: matrix()?, findings: Findings::default() };
        matrix.refusals().await.context("refusals")?;
        matrix.permissions().await.context("permissions")?;
        matrix.findings.finish()
    };
    work.await.map_err(|error| scenario::with_logs(&error, &outrider))
}

impl Matrix {
    /// Makes all calls that are refused, or answered without the victim's objects. Nothing of the
    /// victim's may change.
    async fn refusals(&mut self) -> Result<()> {
        let mut before = self.snapshot().await?;
        for (method, row) in &self.methods {
            let required = scope(method)?;
            for scope in scopes()? {
                for (who, expected) in Who::ALL.into_iter().zip(row.reach) {
                    let caller = Caller { who, scope: &scope };
                    let verdicts = if scope != required && scope != ADMIN {
                        self.lacks_the_scope(method, row, caller).await
                    } else if matches!(who, Who::Own | Who::Whole) && expected == Expected::Allowed
                    {
                        self.reaches_across(method, row, caller).await
                    } else {
                        self.is_foreign(method, row, caller, expected).await
                    };
                    self.findings
                        .add(verdicts.with_context(|| format!("{} by {caller:?}", row.method)));
                }
            }
            let after = self.snapshot().await?;
            for (list, now) in &after {
                let same = before.iter().any(|(name, then)| name == list && then == now);
                self.findings.add(if same {
                    Ok(())
                } else {
                    Err(anyhow::anyhow!("{}: refused calls changed what {list} tells", row.method))
                });
            }
            before = after;
        }
        Ok(())
    }

    /// Returns everything that the victim can read about itself.
    async fn snapshot(&self) -> Result<Vec<(String, Verdict)>> {
        let ids = &self.world.victim.ids;
        let token = self.world.token(Who::Whole, ADMIN, ids).await?;
        let mut told = Vec::new();
        for (method, row) in &self.methods {
            let request = row.request(method, ids);
            let request = match method.name() {
                name if name.starts_with("List") => whole_list(method, &request),
                name if name.starts_with("Get") => request,
                _ => continue,
            };
            let verdict = Verdict::of_grpc(
                self.grpc.call(method, &token, &request, LET_IN).await?,
                &Ids::new(),
            )?;
            ensure!(
                verdict.answer().is_some(),
                "{} is refused to its owner: {verdict:?}",
                row.method
            );
            told.push((row.method.to_owned(), verdict));
        }
        Ok(told)
    }

    /// Makes the calls that succeed.
    async fn permissions(&mut self) -> Result<()> {
        for (method, row) in &self.methods {
            for scope in [scope(method)?.as_str(), ADMIN] {
                for (who, expected) in Who::ALL.into_iter().zip(row.reach) {
                    if expected != Expected::Allowed || !matches!(who, Who::Own | Who::Whole) {
                        continue;
                    }
                    let caller = Caller { who, scope };
                    let result = self.is_allowed(method, row, caller).await;
                    self.findings
                        .add(result.with_context(|| format!("{} by {caller:?}", row.method)));
                }
            }
        }
        Ok(())
    }

    async fn is_allowed(
        &self,
        method: &MethodDescriptor,
        row: &Row,
        caller: Caller<'_>,
    ) -> Result<()> {
        for way in 0.. {
            let ids = match row.uses_up {
                Some(field) => self.world.with_new(field).await?,
                None => self.world.victim.ids.clone(),
            };
            let token = self.world.token(caller.who, caller.scope, &ids).await?;
            let request = row.request(method, &ids);
            let verdict = match way {
                0 => {
                    Verdict::of_grpc(self.grpc.call(method, &token, &request, LET_IN).await?, &ids)?
                }
                _ => match self.by_rest(method, &token, &request, way - 1, &ids).await? {
                    Some(verdict) => verdict,
                    None => break,
                },
            };
            ensure!(verdict.answer().is_some(), "way {way} is to be allowed: {verdict:?}");
        }
        Ok(())
    }

    async fn lacks_the_scope(
        &self,
        method: &MethodDescriptor,
        row: &Row,
        caller: Caller<'_>,
    ) -> Result<()> {
        for verdict in self.verdicts(method, row, caller, &self.world.victim.ids).await? {
            verdict.is_refused("PermissionDenied", 403, "MISSING_SCOPE")?;
        }
        Ok(())
    }

    /// Asserts that an object out of reach is answered like one that does not exist.
    async fn is_foreign(
        &self,
        method: &MethodDescriptor,
        row: &Row,
        caller: Caller<'_>,
        expected: Expected,
    ) -> Result<()> {
        let victim = &self.world.victim.ids;
        let known: &[&str] = if caller.who == Who::Stranger { &[] } else { &["organization_id"] };
        let real = self.verdicts(method, row, caller, victim).await?;
        let unreal = self.verdicts(method, row, caller, &missing(victim, known)).await?;
        for verdict in &real {
            match expected {
                Expected::Allowed => verdict.shows_none_of(victim, known)?,
                Expected::NotFound => verdict.is_refused("NotFound", 404, "NOT_FOUND")?,
                Expected::Beyond => {
                    verdict.is_refused("PermissionDenied", 403, "BEYOND_OWN_SCOPE")?
                }
            }
        }
        // New objects and lists differ in any case.
        ensure!(
            expected == Expected::Allowed || real == unreal,
            "tells what exists: {real:?} and, of what does not, {unreal:?}"
        );
        self.reaches_across(method, row, caller).await
    }

    /// Asks for the victim's objects under another project, which the caller reaches.
    async fn reaches_across(
        &self,
        method: &MethodDescriptor,
        row: &Row,
        caller: Caller<'_>,
    ) -> Result<()> {
        let victim = &self.world.victim.ids;
        let project = match caller.who {
            Who::Own => return Ok(()),
            Who::Whole | Who::Sibling => &self.world.sibling.ids["project_id"],
            Who::Stranger => &self.world.stranger.ids["project_id"],
        };
        let known: &[&str] = if caller.who == Who::Stranger { &[] } else { &["organization_id"] };
        let across = |mut ids: Ids| {
            ids.insert("project_id", project.clone());
            ids
        };
        let request = row.request(method, &across(victim.clone()));
        let objects =
            victim.iter().filter(|(field, _)| !["project_id", "organization_id"].contains(*field));
        let concerned = !request["project_id"].is_null()
            && objects.into_iter().any(|(_, id)| request.to_string().contains(id));
        if !concerned {
            return Ok(());
        }
        let real = self.verdicts(method, row, caller, &across(victim.clone())).await?;
        let unreal = self.verdicts(method, row, caller, &across(missing(victim, known))).await?;
        let filters = ["List", "Tail"].iter().any(|verb| method.name().starts_with(verb));
        for verdict in &real {
            match verdict.answer() {
                Some(_) if filters => verdict.shows_none_of(victim, known)?,
                _ => verdict
                    .is_refused("NotFound", 404, "NOT_FOUND")
                    .context("under another project")?,
            }
        }
        ensure!(
            real == unreal,
            "tells across projects what exists: {real:?} and, of what does not, {unreal:?}"
        );
        Ok(())
    }

    /// Calls over gRPC and over every REST binding.
    async fn verdicts(
        &self,
        method: &MethodDescriptor,
        row: &Row,
        caller: Caller<'_>,
        ids: &Ids,
    ) -> Result<Vec<Verdict>> {
        let token = self.world.token(caller.who, caller.scope, &self.world.victim.ids).await?;
        let request = row.request(method, ids);
        let mut verdicts =
            vec![Verdict::of_grpc(self.grpc.call(method, &token, &request, REFUSED).await?, ids)?];
        for way in 0.. {
            match self.by_rest(method, &token, &request, way, ids).await? {
                Some(verdict) => verdicts.push(verdict),
                None => break,
            }
        }
        Ok(verdicts)
    }

    /// Calls one of the method's REST bindings, or returns `None` if there are no more. Streams are
    /// called over gRPC only.
    async fn by_rest(
        &self,
        method: &MethodDescriptor,
        token: &str,
        request: &Value,
        way: usize,
        ids: &Ids,
    ) -> Result<Option<Verdict>> {
        if method.is_server_streaming() || method.is_client_streaming() {
            return Ok(None);
        }
        let Some(request) = rest_requests(method, request)?.into_iter().nth(way) else {
            return Ok(None);
        };
        let rest = self.world.victim.rest.with_token(Some(token));
        Verdict::of_rest(rest.send(request.method, &request.path, request.body).await?, ids)
            .map(Some)
    }
}

macro_rules! on_every_shape {
    ($($module:ident $shape:ident),+) => {
        $(mod $module {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tenants_are_apart() {
                super::run_with_shares(1,
                    async || super::tenants_are_apart(outrider_tests::Shape::$shape).await).await;
            }
        })+
    };
}

on_every_shape!(sqlite Sqlite, postgres Postgres, mesh Mesh);
