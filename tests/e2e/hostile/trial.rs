//! One run: the healthy tenant alone, beside attacks, and alone again; and the verdict.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Attacker, Outrider, Receiver, Shape, cluster::Options, pki::Identity, usage, wait_until,
};
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use super::{
    attacks::Attack,
    foe::{Done, Foe},
    healthy::Healthy,
    resources::{ATTACKERS, Used, Watch},
    seen::{Phase, Seen},
    terms::{Bounds, Plan, Takes},
};
use crate::{
    findings::Findings,
    scenario,
    telemetry::{scrapes, sum},
};

/// The number of hostile organizations, which attacks use in turn.
const ORGANIZATIONS: usize = 4;
/// The time after its end within which every attack must have had an effect.
const HIT: Duration = Duration::from_secs(30);
/// The time within which the deliveries of deleted projects must be canceled.
const CLEARED: Duration = Duration::from_secs(120);
/// How many deliveries of the healthy tenant may be pending at any time.
const PENDING: f64 = 200.0;
/// The time of idleness within which memory must return.
const IDLE: Duration = Duration::from_secs(60);
/// The number of parts of a long attack that are shown.
const PARTS: u32 = 20;
/// How much memory may grow in any case, in bytes. A process with little memory may double it.
const GROWTH: u64 = 16 << 20;

/// The results of a run.
struct Run {
    seen: Seen,
    /// The phases: quiet, attack, after.
    phases: [Phase; 3],
    used: [Vec<Used>; 3],
    done: Vec<(Attack, Done)>,
    /// The memory of each process after the idle time.
    idle: Option<Vec<u64>>,
}

/// Runs attacks at once on a separate server, prints the results, and records failures. With an
/// identity, its public port has TLS.
pub async fn run(
    title: &str,
    shape: Shape,
    identity: Option<&Identity>,
    attacks: &[Attack],
    plan: &Plan,
    findings: &mut Findings,
) -> Result<()> {
    let options = Options { public: identity.cloned(), ..Options::of_the_product() };
    let outrider = Arc::new(block_in_place(|| scenario::start(shape, &options, None))?);
    let takes = if attacks.iter().all(|attack| attack.takes == Takes::Shares) {
        Takes::Shares
    } else {
        Takes::Processor
    };
    let bounds = plan.bounds(takes, attacks.len() == 1);
    let outcome = carry_out(&outrider, attacks, plan, &bounds).await;
    match outcome.and_then(|run| run.judge(title, &bounds, findings)) {
        Ok(()) => Ok(()),
        Err(error) => Err(scenario::with_logs(&error.context(title.to_owned()), &outrider)),
    }
}

/// Reports the progress of a run, which may take half an hour.
struct Progress(Instant);

impl Progress {
    fn tell(&self, what: &str) {
        eprintln!("   {:6.1} s: {what}", self.0.elapsed().as_secs_f64());
    }
}

async fn carry_out(
    outrider: &Arc<Outrider>,
    attacks: &[Attack],
    plan: &Plan,
    bounds: &Bounds,
) -> Result<Run> {
    let progress = Progress(Instant::now());
    let receiver = Arc::new(Receiver::start_counting().await?);
    let mut tenants = Vec::new();
    for _ in 0..ORGANIZATIONS.min(attacks.len()) {
        tenants.push(Arc::new(Attacker::new(outrider, &receiver)?));
    }
    let alone = attacks.len() == 1;
    let foes = attacks.iter().zip(tenants.iter().cycle());
    let foes: Vec<(Attack, Foe)> = foes
        .map(|(attack, tenant)| {
            (*attack, Foe::new(outrider, tenant, &receiver, plan.force(attack.takes, alone)))
        })
        .collect();
    let healthy = Healthy::start(outrider).await?;
    let watch = Watch::start(outrider);

    progress.tell("quiet");
    let (quiet, ()) = phase(sleep(plan.quiet)).await;
    progress.tell("attack");
    let (attacked, ()) = phase(attack(&foes, plan.attack)).await;
    progress.tell("after");
    clear(outrider, &tenants).await.context("what the attackers left is not cleared away")?;
    let (after, ()) = phase(sleep(plan.after)).await;
    progress.tell("the healthy tenant waits for the rest");
    let project = healthy.project.clone();
    let seen = healthy.finish()?;
    let (code, told) = block_in_place(|| outrider.verify_ledger(&["--project", &project]))?;
    ensure!(code == Some(0) && told["ok"] == true, "the ledger does not add up: {told}");

    let phases = [quiet, attacked, after];
    let used = [0, 1, 2].map(|number| watch.in_phase(&phases[number]));
    progress.tell("idle");
    let idle = match bounds.memory_after {
        Some(times) => Some(return_to(outrider, &used[0], times).await),
        None => None,
    };
    progress.tell("done");
    let done = foes.iter().map(|(attack, foe)| (*attack, foe.done())).collect();
    Ok(Run { seen, phases, used, done, idle })
}

/// Runs all attacks at once for a time, and longer if they begin with much configuration.
async fn attack(foes: &[(Attack, Foe)], time: Duration) {
    let mut attacks = JoinSet::new();
    for (attack, foe) in foes {
        attacks.spawn(foe.clone().attack(*attack));
    }
    sleep(time).await;
    let all_have_hit = || foes.iter().all(|(_, foe)| foe.done().hits > 0);
    // The verdict reports an attack without an effect.
    wait_until("every attack has hit", HIT, async || all_have_hit().then_some(())).await.ok();
    attacks.shutdown().await;
}

async fn phase<T>(work: impl Future<Output = T>) -> (Phase, T) {
    let begin = Instant::now();
    let value = work.await;
    (begin..Instant::now(), value)
}

/// Deletes the attackers' projects, and waits until everything that was pending in them is
/// canceled, because that takes CPU and is not a lasting effect of the attack.
async fn clear(outrider: &Outrider, tenants: &[Arc<Attacker>]) -> Result<()> {
    for tenant in tenants {
        tenant.delete_projects().await?;
    }
    wait_until("the attackers' deliveries are cancelled", CLEARED, async || {
        let pending = sum(&scrapes(outrider).await.ok()?, "outrider_dispatch_pending_deliveries ");
        (pending <= PENDING).then_some(())
    })
    .await
}

/// Waits until each process has about its earlier memory again. Returns the memory of each, also
/// when time is up.
async fn return_to(outrider: &Outrider, before: &[Used], times: f64) -> Vec<u64> {
    let processes = outrider.process_ids();
    let memory = || processes.iter().map(|process| usage::memory(*process)).collect::<Vec<u64>>();
    let back = async || {
        let now = memory();
        now.iter()
            .zip(before)
            .all(|(now, before)| *now <= allowed(before.last, times))
            .then_some(now)
    };
    wait_until("memory is back", IDLE, back).await.unwrap_or_else(|_| memory())
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52"
)]
fn allowed(before: u64, times: f64) -> u64 {
    ((before as f64 * times) as u64).max(before + GROWTH)
}

impl Run {
    fn judge(self, title: &str, bounds: &Bounds, findings: &mut Findings) -> Result<()> {
        let [quiet, attack] = [0, 1].map(|number| self.seen.in_phase(&self.phases[number]));
        eprintln!("{}", self.table(title)?);
        let mut demand = |holds: bool, what: String| {
            findings.add(if holds { Ok(()) } else { Err(anyhow::anyhow!("{title}: {what}")) });
        };
        let Seen { lost, duplicates, wrong, .. } = &self.seen;
        demand(*lost == 0, format!("{lost} lost"));
        demand(*duplicates == 0, format!("{duplicates} duplicates"));
        demand(
            wrong.is_empty(),
            format!("{} things are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]),
        );
        let refused = self.seen.refused();
        demand(
            refused == 0,
            format!("{refused} answers were not OK: {:?}\n{}", self.seen.told, self.seen.timeline),
        );
        let longest = bounds.longest_p99(quiet.p99);
        demand(
            attack.p99 <= longest,
            format!("p99 {:?}, {:?} before; at most {longest:?}", attack.p99, quiet.p99),
        );
        let since = self.seen.in_phase(&(self.phases[1].end..self.phases[2].end));
        for (figures, when) in [(attack, "during"), (since, "after")] {
            let gap = figures.gap_of_the_server();
            demand(
                gap <= bounds.gap,
                format!("a gap of {gap:?} {when} the attack; at most {:?}", bounds.gap),
            );
        }
        let of_outrider = |used: &&Used| used.process != ATTACKERS;
        for used in self.used[1].iter().filter(of_outrider) {
            let most = bounds.memory;
            demand(
                used.highest <= most,
                format!("{} took {} MiB; at most {}", used.process, used.highest >> 20, most >> 20),
            );
        }
        let length = self.phases[2].end - self.phases[2].start;
        let cpu = self.used[2]
            .iter()
            .filter(of_outrider)
            .map(|used| used.cpu)
            .sum::<Duration>()
            .div_f64(length.as_secs_f64());
        demand(
            cpu <= bounds.cpu_after,
            format!("{cpu:?} of CPU a second after it; at most {:?}", bounds.cpu_after),
        );
        if let (Some(idle), Some(times)) = (&self.idle, bounds.memory_after) {
            for (now, used) in idle.iter().zip(&self.used[0]) {
                let told =
                    format!("{}: {} MiB, {} before", used.process, now >> 20, used.last >> 20);
                demand(
                    *now <= allowed(used.last, times),
                    format!("memory does not come back: {told}"),
                );
            }
        }
        for (attack, done) in &self.done {
            demand(done.hits > 0, format!("{} did nothing: {:?}", attack.name, done.errors));
        }
        Ok(())
    }

    /// Returns a table of all figures.
    fn table(&self, title: &str) -> Result<String> {
        let mut text = String::new();
        let Seen { published, lost, duplicates, .. } = &self.seen;
        writeln!(
            text,
            "== {title}: {published} events, {lost} lost, {duplicates} duplicates, {:?}",
            self.seen.told
        )?;
        for (name, phase) in ["quiet", "attack", "after"].iter().zip(&self.phases) {
            let figures = self.seen.in_phase(phase);
            writeln!(
                text,
                "   {name:<7} {:>4} s {:>6} arrived, {figures}",
                (phase.end - phase.start).as_secs(),
                figures.arrived
            )?;
        }
        self.parts(&mut text)?;
        for (place, of) in self.used[1].iter().enumerate() {
            let [before, after] = [0, 2].map(|number| &self.used[number][place]);
            let idle = self.idle.as_ref().and_then(|idle| idle.get(place));
            let idle = idle.map(|idle| format!(", idle {}", idle >> 20)).unwrap_or_default();
            writeln!(
                text,
                "   {:<9} memory {} MiB before, {} highest, {} after{idle}; CPU {:.2} {:.2} {:.2} \
                    s, {} per healthy event",
                of.process,
                before.last >> 20,
                of.highest >> 20,
                after.last >> 20,
                before.cpu.as_secs_f64(),
                of.cpu.as_secs_f64(),
                after.cpu.as_secs_f64(),
                self.each(of.cpu)
            )?;
        }
        for (attack, Done { hits, errors }) in &self.done {
            writeln!(
                text,
                "   {:<24} {hits:>8} hits{}",
                attack.name,
                if errors.is_empty() { String::new() } else { format!(" {errors:?}") }
            )?;
        }
        Ok(text)
    }

    /// Adds the figures of the parts of a long attack, which show whether a bound was missed once
    /// or throughout.
    fn parts(&self, text: &mut String) -> Result<()> {
        let Phase { start, end } = self.phases[1];
        if end - start < PARTS * Duration::from_secs(10) {
            return Ok(());
        }
        let length = (end - start) / PARTS;
        for number in 0..PARTS {
            let begin = start + length * number;
            let figures = self.seen.in_phase(&(begin..begin + length));
            writeln!(text, "   at {:>6} s {figures}", (length * number).as_secs())?;
        }
        Ok(())
    }

    /// Returns the CPU time for each event of the healthy tenant during the attack.
    fn each(&self, cpu: Duration) -> String {
        let events =
            self.seen.answers.iter().filter(|sample| self.phases[1].contains(&sample.at)).count();
        format!(
            "{:.2} ms",
            cpu.as_secs_f64() * 1e3 / f64::from(u32::try_from(events.max(1)).unwrap_or(u32::MAX))
        )
    }
}
