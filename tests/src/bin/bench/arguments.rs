//! What can be asked of the benchmark.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::arrivals::PATIENCE;

/// Measures Outrider on PostgreSQL (synced commits) and Redis (append-only file), or on SQLite,
/// with real servers on this machine.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: Option<What>,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Every row that is promised, each measured alone on fresh servers; the default.
    Table(Table),
    /// One load, as described by the options.
    Run(Load),
    /// How cost grows with one size, other things equal.
    Growth(Growth),
    /// What a tenant whose endpoints hang costs another tenant.
    Attacks(Attacks),
}

#[derive(Debug, Args)]
pub struct Attacks {
    /// Only these: pair, many, repeated-pairs, payloads, projects, turncoats.
    pub names: Vec<String>,
    /// Only in this layout; all three without it.
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// Seconds before the attack; the attack itself takes at least 45.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

#[derive(Debug, Args)]
pub struct Table {
    /// Only the rows whose name contains one of these words.
    pub rows: Vec<String>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 15)]
    pub seconds: u64,
    /// Runs `outrider verify-ledger` after each load: whether anything was lost is then proved from
    /// the tables too.
    #[arg(long)]
    pub verify: bool,
}

impl Table {
    /// What is asked by nobody who asks for nothing.
    pub fn whole() -> Self {
        let Arguments { what: Some(What::Table(table)) } =
            Arguments::parse_from(["bench", "table"])
        else {
            unreachable!("it was asked")
        };
        table
    }
}

/// A load in a closed loop: everyone publishes again when the last one is answered.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// How long callers publish, in seconds.
    #[arg(long, default_value_t = 15)]
    pub seconds: u64,
    /// Callers at once; each waits for its answer before it publishes again.
    #[arg(long, default_value_t = 64)]
    pub callers: usize,
    /// The payload in bytes.
    #[arg(long, default_value_t = 1_024)]
    pub payload: usize,
    /// Endpoints that each get every event.
    #[arg(long, default_value_t = 1)]
    pub fan_out: usize,
    /// Further endpoints, with a subscription to a type that is never published.
    #[arg(long, default_value_t = 0)]
    pub idle_endpoints: usize,
    /// Further subscriptions to types that are never published, at an endpoint of their own.
    #[arg(long, default_value_t = 0)]
    pub idle_subscriptions: usize,
    /// Deliveries of earlier today that are in the store already, ten of each event, to ten
    /// endpoints; PostgreSQL only.
    #[arg(long, default_value_t = 0)]
    pub old_deliveries: u64,
    /// An endpoint's limit of requests at once.
    #[arg(long, default_value_t = 1_024)]
    pub max_in_flight: u32,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Layout::One)]
    pub layout: Layout,
    /// How events are published.
    #[arg(long, value_enum, default_value_t = Mode::Rest)]
    pub mode: Mode,
    /// Streams at once, each on a connection of its own; only for `--mode stream`.
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// How often there is what may be there more than once: the one process of `--layout one`,
    /// whose callers take turns with all of them, or the worker of `--layout six`.
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
    /// For how long nothing may arrive, in seconds, until what is missing counts as lost.
    #[arg(long, default_value_t = PATIENCE.as_secs())]
    pub patience: u64,
    /// Runs `outrider verify-ledger` after the load.
    #[arg(long)]
    pub verify: bool,
}

impl Load {
    /// The defaults, for some seconds.
    pub fn seconds(seconds: u64) -> Self {
        let Arguments { what: Some(What::Run(load)) } = Arguments::parse_from(["bench", "run"])
        else {
            unreachable!("it was asked")
        };
        Self { seconds, ..load }
    }
}

#[derive(Debug, Args)]
pub struct Growth {
    /// What grows.
    #[arg(value_enum)]
    pub axis: Axis,
    /// The sizes; each axis has its own default.
    pub sizes: Vec<u64>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Runs `outrider verify-ledger` after each load.
    #[arg(long)]
    pub verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// Deliveries in the store.
    Stored,
    /// Endpoints of the project.
    Endpoints,
    /// Subscriptions of the project.
    Subscriptions,
    /// Bytes of an event.
    Payload,
    /// Endpoints that get each event.
    FanOut,
    /// Whole processes: as many of every role.
    Processes,
    /// Processes of the worker, beside one of every other role.
    Workers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// PostgreSQL and Redis, all roles in one process.
    One,
    /// PostgreSQL and Redis, six processes.
    Six,
    /// SQLite and the embedded queue.
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By REST: each caller waits for its answer before it publishes again.
    Rest,
    /// By PublishEvent over gRPC, all callers on one connection to each process.
    Grpc,
    /// By StreamEvents: each connection sends as fast as the server reads; a latency is from an
    /// event to its acknowledgement.
    Stream,
}
