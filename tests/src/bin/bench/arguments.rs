//! The command line of the benchmark.

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
    /// Measure every promised row, each alone on fresh servers. This is the default.
    Table(Table),
    /// Measure one load, as described by the options.
    Run(Load),
    /// Measure how cost grows with one size, other things equal.
    Growth(Growth),
    /// Measure what a tenant whose endpoints hang costs another tenant.
    Attacks(Attacks),
}

#[derive(Debug, Args)]
pub struct Attacks {
    /// Only these attacks: pair, many, repeated-pairs, payloads, projects, turncoats.
    pub names: Vec<String>,
    /// Only this layout. Default: all three.
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// Seconds before the attack. The attack itself takes at least 45.
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
    /// Run `outrider verify-ledger` after each load, which also proves from the tables that nothing
    /// was lost.
    #[arg(long)]
    pub verify: bool,
}

impl Table {
    /// Returns the arguments of a run without arguments.
    pub fn whole() -> Self {
        let Arguments { what: Some(What::Table(table)) } =
            Arguments::parse_from(["bench", "table"])
        else {
            unreachable!("it was asked")
        };
        table
    }
}

/// A load in a closed loop: each caller publishes again when it is answered.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// How long callers publish, in seconds.
    #[arg(long, default_value_t = 15)]
    pub seconds: u64,
    /// Number of callers. Each waits for its answer before it publishes again.
    #[arg(long, default_value_t = 64)]
    pub callers: usize,
    /// Size of the payload, in bytes.
    #[arg(long, default_value_t = 1_024)]
    pub payload: usize,
    /// Number of endpoints that each get every event.
    #[arg(long, default_value_t = 1)]
    pub fan_out: usize,
    /// Number of further endpoints, with a subscription to a type that is never published.
    #[arg(long, default_value_t = 0)]
    pub idle_endpoints: usize,
    /// Number of further subscriptions to types that are never published, of an endpoint of their
    /// own.
    #[arg(long, default_value_t = 0)]
    pub idle_subscriptions: usize,
    /// Number of deliveries of earlier today that are already in the store: ten of each event, to
    /// ten endpoints. PostgreSQL only.
    #[arg(long, default_value_t = 0)]
    pub old_deliveries: u64,
    /// Limit of requests in flight of each endpoint.
    #[arg(long, default_value_t = 1_024)]
    pub max_in_flight: u32,
    /// The processes and servers to measure.
    #[arg(long, value_enum, default_value_t = Layout::One)]
    pub layout: Layout,
    /// How events are published.
    #[arg(long, value_enum, default_value_t = Mode::Rest)]
    pub mode: Mode,
    /// Number of streams, each on its own connection. Only for `--mode stream`.
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Number of processes with `--layout one`, between which callers alternate, or of workers with
    /// `--layout six`.
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
    /// Seconds without an arrival after which missing deliveries count as lost.
    #[arg(long, default_value_t = PATIENCE.as_secs())]
    pub patience: u64,
    /// Run `outrider verify-ledger` after the load.
    #[arg(long)]
    pub verify: bool,
}

impl Load {
    /// Returns the default load for this many seconds.
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
    /// The size that grows.
    #[arg(value_enum)]
    pub axis: Axis,
    /// The sizes. Each axis has its own default.
    pub sizes: Vec<u64>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Run `outrider verify-ledger` after each load.
    #[arg(long)]
    pub verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// Deliveries in the store
    Stored,
    /// Endpoints of the project
    Endpoints,
    /// Subscriptions of the project
    Subscriptions,
    /// Bytes of an event
    Payload,
    /// Endpoints that get each event
    FanOut,
    /// Processes with all roles
    Processes,
    /// Workers, with one process of each other role
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
    /// REST: each caller waits for its answer before it publishes again.
    Rest,
    /// PublishEvent over gRPC, with all callers on one connection to each process.
    Grpc,
    /// StreamEvents: each connection sends as fast as the server reads. Latency is measured from an
    /// event to its acknowledgment.
    Stream,
}
