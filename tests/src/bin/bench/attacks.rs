//! Measures what a tenant whose endpoints hang costs another tenant: latency and gaps of a healthy
//! project during the attack, compared with the same project on the same servers before.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use outrider_tests::{Attacker, Limits, Receiver, attacker::TO_GROW};

use crate::{
    arguments::{Attacks, Layout},
    harm::Harm,
    lines::{self, Line, less, wrong},
    pace::{self, Paced},
    report::{percentile, tell},
    world::{World, event},
};

/// Events of the healthy project per second.
const RATE: u32 = 100;
/// The bounds of the effect on the healthy project.
const P99_TIMES: (f64, f64) = (2.0, 1.2);
const GAP_MILLIS: (f64, f64) = (250.0, 100.0);

/// The attack of the other organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Two endpoints with the highest limit.
    Pair,
    /// Forty endpoints with the default limits.
    Many,
    /// Another pair every 29 s, a second before the requests of the last one time out.
    Pairs,
    /// Five endpoints and 70 events of 1 MB.
    Payloads,
    /// A hundred endpoints in twenty projects.
    Projects,
    /// A pair that answered fast until its windows had their full size, and then hangs.
    Turncoats,
}

const ATTACKS: [(&str, Attack); 6] = [
    ("pair", Attack::Pair),
    ("many", Attack::Many),
    ("repeated-pairs", Attack::Pairs),
    ("payloads", Attack::Payloads),
    ("projects", Attack::Projects),
    ("turncoats", Attack::Turncoats),
];

/// Measures the requested attacks in each layout. Fails at the end if an attack failed or a line
/// misses its bound.
pub async fn run(asked: &Attacks) -> Result<()> {
    if let Some(unknown) =
        asked.names.iter().find(|name| !ATTACKS.iter().any(|(known, _)| known == name))
    {
        bail!(
            "no attack is called {unknown}; there are {}",
            ATTACKS.map(|(name, _)| name).join(", ")
        );
    }
    let layouts = match asked.layout {
        Some(layout) => vec![layout],
        None => vec![Layout::Sqlite, Layout::One, Layout::Six],
    };
    lines::head();
    let (mut missed, mut failed) = (0, 0);
    for layout in layouts {
        for (name, attack) in ATTACKS {
            if !asked.names.is_empty() && !asked.names.iter().any(|asked| asked == name) {
                continue;
            }
            let title = format!("{name}, {}", format!("{layout:?}").to_lowercase());
            match attack.measure(layout, &title, asked.seconds).await {
                Ok(lines) => {
                    missed += lines.iter().filter(|line| line.misses()).count();
                    lines.iter().for_each(Line::print);
                }
                Err(error) => {
                    failed += 1;
                    lines::failed(&title, &error);
                    tell(&title, &error);
                }
            }
        }
    }
    ensure!(missed + failed == 0, "{missed} lines miss what must hold, {failed} rows failed");
    Ok(())
}

impl Attack {
    async fn measure(self, layout: Layout, title: &str, seconds: u64) -> Result<Vec<Line>> {
        let mut world = World::start(layout, 1, Receiver::start().await?)?;
        let warmed = async {
            world.endpoints(1, 64).await?;
            world.warm_up(&event(self.payload())).await
        };
        let warmed = warmed.await;
        world.logged(warmed)?;
        let world = Arc::new(world);
        let measured = self.compare(&world, title, Duration::from_secs(seconds)).await;
        world.logged(measured)
    }

    async fn compare(self, world: &Arc<World>, title: &str, time: Duration) -> Result<Vec<Line>> {
        let attacker = Attacker::new(&world.servers.outrider, &world.receiver)?;
        let prepared = match self {
            Self::Turncoats => Some(attacker.faithful_pair(TO_GROW).await?),
            _ => None,
        };
        let before = pace::observe(world, RATE, time, self.payload()).await?;
        let attacking = async {
            match self {
                Self::Pair => attacker.hanging(1, 2, Limits::HIGHEST, 550, 100).await,
                Self::Many => attacker.hanging(1, 40, Limits::DEFAULT, 100, 100).await,
                Self::Payloads => attacker.hanging(1, 5, Limits::DEFAULT, 70, 1_000_000).await,
                Self::Projects => attacker.hanging(20, 5, Limits::DEFAULT, 100, 100).await,
                Self::Turncoats => match &prepared {
                    Some(pair) => attacker.turn(pair, TO_GROW).await,
                    None => Ok(()),
                },
                Self::Pairs => loop {
                    attacker.hanging(1, 2, Limits::HIGHEST, 550, 100).await?;
                    tokio::time::sleep(Duration::from_secs(29)).await;
                },
            }
        };
        // The first hanging requests time out after 15 s or 30 s. The time before and after that is
        // measured.
        let long = time.max(Duration::from_secs(if self == Self::Pairs { 75 } else { 45 }));
        let (during, attacked) = {
            let observed = pace::observe(world, RATE, long, self.payload());
            tokio::pin!(observed);
            tokio::select! {
                during = &mut observed => (during?, Ok(())),
                attacked = attacking => (observed.await?, attacked),
            }
        };
        attacked?;
        Ok(self.lines(title, &before, &during))
    }

    fn lines(self, title: &str, before: &Paced, during: &Paced) -> Vec<Line> {
        let p99 = |paced: &Paced| percentile(&paced.receipt, 990);
        let p50 = |paced: &Paced| percentile(&paced.receipt, 500);
        let published = |paced: &Paced| percentile(&paced.publish, 990);
        eprintln!(
            "  {title}: p50 {:.2} ms before, {:.2} ms during; p99 {:.2} and {:.2} ms, of \
                publishing {:.2} and {:.2} ms; \
             longest gap {:.0} and {:.0} ms",
            p50(before),
            p50(during),
            p99(before),
            p99(during),
            published(before),
            published(during),
            before.gap.as_secs_f64() * 1e3,
            during.gap.as_secs_f64() * 1e3,
        );
        let mut harm: Harm = before.harm;
        harm += during.harm;
        let figures = [
            less(
                format!("{title}: p99 of the healthy, times"),
                P99_TIMES.0,
                P99_TIMES.1,
                p99(during) / p99(before),
            ),
            less(
                format!("{title}: longest gap, ms"),
                GAP_MILLIS.0,
                GAP_MILLIS.1,
                during.gap.as_secs_f64() * 1e3,
            ),
        ];
        figures.into_iter().chain(wrong(harm)).collect()
    }

    /// The size of the healthy project's events.
    fn payload(self) -> usize {
        if self == Self::Payloads { 40 << 10 } else { 1_024 }
    }
}
