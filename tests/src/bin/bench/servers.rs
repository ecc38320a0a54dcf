//! The measured servers and their cost.

use anyhow::{Context, Result};
use outrider_tests::{
    Outrider, Shape,
    client::Rest,
    cluster::Options,
    servers::{Postgres, Redis},
    usage::{self, Usage},
};

use crate::arguments::Layout;

/// The measured servers.
pub struct Servers {
    pub outrider: Outrider,
    /// The URLs of the public ports.
    pub urls: Vec<String>,
    pub postgres: Option<Postgres>,
    pub redis: Option<Redis>,
}

/// The cost of everything since its start.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Each process of Outrider by its role.
    pub roles: Vec<(String, Usage)>,
    pub postgres: Usage,
    pub redis: Usage,
    pub callers: Usage,
    /// Statements of PostgreSQL's clients, including BEGIN and COMMIT.
    pub statements: u64,
    /// PostgreSQL's transactions.
    pub transactions: u64,
    /// Round trips from Outrider to Redis: a script, a pipeline or a command.
    pub round_trips: u64,
    /// Redis's commands, including those in scripts.
    pub commands: u64,
}

/// The first database that the harness creates.
pub const DATABASE: &str = "outrider_0";

impl Servers {
    /// Starts the layout, with `processes` processes or workers.
    pub fn start(layout: Layout, processes: usize) -> Result<Self> {
        let (shape, needs_servers) = match layout {
            Layout::One => (Shape::Postgres, true),
            Layout::Six => (Shape::Mesh, true),
            Layout::Sqlite => (Shape::Sqlite, false),
        };
        let counted = [
            "shared_preload_libraries=pg_stat_statements",
            "pg_stat_statements.track_planning=off",
        ];
        let postgres = needs_servers.then(|| Postgres::start_durable(&counted)).transpose()?;
        let redis = needs_servers.then(Redis::start_persistent).transpose()?;
        let mut outrider =
            Outrider::start(shape, &Options::of_the_product(), postgres.as_ref(), redis.as_ref())?;
        let mut urls = vec![outrider.url()];
        for _ in 1..processes {
            match layout {
                Layout::Six => drop(outrider.start_another("worker")?),
                Layout::One | Layout::Sqlite => {
                    urls.push(format!("http://{}", outrider.start_another("all")?))
                }
            }
        }
        if let Some(postgres) = &postgres {
            postgres.query(DATABASE, "CREATE EXTENSION pg_stat_statements")?;
        }
        Ok(Self { outrider, urls, postgres, redis })
    }

    /// Returns the cost of everything until now.
    pub async fn cost(&self) -> Result<Cost> {
        let of = |pid: Option<u32>| pid.map(|pid| usage::of(&[pid])).unwrap_or_default();
        let number = |sql: &str| match &self.postgres {
            Some(server) => anyhow::Ok(server.query(DATABASE, sql)?.trim().parse()?),
            None => Ok(0),
        };
        let roles = self
            .outrider
            .processes()
            .into_iter()
            .map(|(role, pid)| (role.to_owned(), usage::of(&[pid])))
            .collect();
        Ok(Cost {
            roles,
            postgres: of(self.postgres.as_ref().map(Postgres::process_id)),
            redis: of(self.redis.as_ref().map(Redis::process_id)),
            callers: usage::of_one(std::process::id()),
            statements: number("SELECT coalesce(sum(calls), 0)::BIGINT FROM pg_stat_statements")?,
            transactions: number(
                "SELECT sum(xact_commit + xact_rollback)::BIGINT FROM pg_stat_database",
            )?,
            round_trips: self.round_trips().await?,
            commands: self.ask_redis("stats", "total_commands_processed:", &[])?,
        })
    }

    /// Returns the requests in Outrider's own histogram plus the reads of jobs, which it omits
    /// because they wait.
    async fn round_trips(&self) -> Result<u64> {
        if self.redis.is_none() {
            return Ok(0);
        }
        let mut sum = self.ask_redis("commandstats", "cmdstat_xreadgroup:calls=", &[','])?;
        for operations in self.outrider.operations() {
            let text = Rest::new(&format!("http://{operations}"), None)
                .send(http::Method::GET, "/metrics", "")
                .await?;
            let text = String::from_utf8(text.body.to_vec())?;
            let counts = text
                .lines()
                .filter(|line| line.starts_with("outrider_queue_command_seconds_count"));
            sum +=
                counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(sum)
    }

    fn ask_redis(&self, section: &str, key: &str, end: &[char]) -> Result<u64> {
        let Some(redis) = &self.redis else { return Ok(0) };
        let told = redis.ask(&format!("INFO {section}"))?;
        let value = told
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .with_context(|| format!("Redis tells no {key}"))?;
        Ok(value.split(end).next().unwrap_or_default().trim().parse()?)
    }
}
