//! Hostile tenants, receivers and callers beside a healthy tenant, in every shape. Its ledger adds
//! up, and it is hardly affected. See docs/testing.md.
//!
//! The bounded part runs with all other tests. The long run, which `tests/run hostile` starts, runs
//! each attack alone and then all of them at once for half an hour, with a release build.

mod attacks;
mod callers;
mod floods;
mod foe;
mod healthy;
mod held;
mod receivers;
mod resources;
mod seen;
mod tenants;
mod terms;
mod traffic;
mod trial;

use anyhow::Result;
use outrider_tests::{Shape, pki::Pki};

use self::terms::Plan;
use crate::{
    findings::Findings,
    scenario::{SHARES, run_with_shares},
};

async fn everything(shape: Shape, plan: Plan) -> Result<()> {
    let mut findings = Findings::default();
    trial::run(
        &format!("{shape:?}, everything"),
        shape,
        None,
        &attacks::plain(),
        &plan,
        &mut findings,
    )
    .await?;
    findings.finish()
}

/// Runs each attack on its own server.
async fn each(shape: Shape) -> Result<()> {
    let (mut findings, plan) = (Findings::default(), Plan::each());
    let pki = Pki::create()?;
    let identity = pki.issue("public")?;
    let plain = attacks::plain().into_iter().map(|attack| (attack, None));
    for (attack, identity) in
        plain.chain(attacks::by_tls().into_iter().map(|attack| (attack, Some(&identity))))
    {
        let title = format!("{shape:?}, {}", attack.name);
        let ended = trial::run(&title, shape, identity, &[attack], &plan, &mut findings).await;
        findings.add(ended);
    }
    findings.finish()
}

macro_rules! on_shapes {
    ($($module:ident $shape:ident),+) => {
        $(mod $module {
            use super::{Plan, Result, SHARES, Shape, each, everything, run_with_shares};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn everything_at_once() {
                run_with_shares(SHARES, async || everything(Shape::$shape,
                    Plan::part()).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "takes half an hour; tests/run hostile runs it with a release"]
            async fn everything_at_once_for_long() -> Result<()> {
                everything(Shape::$shape, Plan::all()).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "takes half an hour; tests/run hostile runs it with a release"]
            async fn each_attack_alone() -> Result<()> {
                each(Shape::$shape).await
            }
        })+
    };
}

on_shapes!(sqlite Sqlite, postgres Postgres, mesh Mesh);
