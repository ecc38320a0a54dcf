//! How long the suite attacks, how hard, and what it allows.

use std::time::Duration;

/// How hard attacks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// As a debug build beside other tests can bear it.
    Part,
    /// As a server can expect it.
    Full,
}

/// What an attack takes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Shares: nothing of it may be noticed.
    Shares,
    /// The processor, which nobody divides: beside it others are slower, and never stand still.
    Processor,
}

/// What the healthy tenant may notice at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The p99 of receipts, times that of the quiet phase; and how much longer it may be in any
    /// case.
    pub p99: (f64, Duration),
    pub gap: Duration,
    /// The most memory of any process, in bytes.
    pub memory: u64,
    /// Processor time of all processes together once the attack is over, in a second.
    pub cpu_after: Duration,
    /// The memory of each process after a minute of idleness, times that before; none when not
    /// judged.
    pub memory_after: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub quiet: Duration,
    pub attack: Duration,
    pub after: Duration,
    force: Force,
    /// Whether the promised figures are judged, of a release on a machine that does nothing else.
    promised: bool,
}

const MIB: u64 = 1 << 20;

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("OUTRIDER_TEST_HOSTILE_{name}")).ok().filter(|value| !value.is_empty())
}

fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(variable(name).and_then(|value| value.parse().ok()).unwrap_or(default))
}

/// Whether an attack was asked for by its name; all are without the variable.
pub fn is_asked_for(name: &str) -> bool {
    variable("ATTACKS").is_none_or(|names| names.split(',').any(|asked| asked.trim() == name))
}

impl Plan {
    /// The bounded part, with other tests.
    pub fn part() -> Self {
        let attack = seconds("SECONDS", 15);
        Self {
            quiet: Duration::from_secs(4),
            attack,
            after: Duration::from_secs(4),
            force: Force::Part,
            promised: false,
        }
    }

    /// One attack of the long run.
    pub fn each() -> Self {
        Self {
            quiet: seconds("QUIET_SECONDS", 10),
            attack: seconds("EACH_SECONDS", 25),
            after: Duration::from_secs(5),
            ..Self::all()
        }
    }

    /// All attacks at once in the long run.
    pub fn all() -> Self {
        Self {
            quiet: seconds("QUIET_SECONDS", 20),
            attack: seconds("SECONDS", 1_800),
            after: Duration::from_secs(10),
            force: Force::Full,
            promised: variable("BOUNDS").is_none_or(|bounds| bounds != "generous"),
        }
    }

    /// How hard an attack is. Beside all others an attack on the processor has less force: together
    /// they must not need more of it than the machine has.
    pub fn force(&self, takes: Takes, alone: bool) -> Force {
        if takes == Takes::Processor && !alone { Force::Part } else { self.force }
    }

    /// What is allowed beside one attack, or beside several.
    pub fn bounds(&self, takes: Takes, alone: bool) -> Bounds {
        let millis = Duration::from_millis;
        if !self.promised {
            return Bounds {
                p99: (10.0, millis(10_000)),
                gap: millis(5_000),
                memory: 1_024 * MIB,
                cpu_after: millis(1_500),
                memory_after: None,
            };
        }
        let (p99, gap) = match (takes, alone) {
            (Takes::Shares, true) => ((2.0, millis(10)), millis(250)),
            (Takes::Processor, true) => ((2.0, millis(100)), millis(500)),
            (_, false) => ((2.0, millis(1_000)), millis(1_000)),
        };
        // All at once fill several of the bounds that docs/operations.md lists under "Memory".
        let memory = if alone { 512 } else { 768 } * MIB;
        Bounds { p99, gap, memory, cpu_after: millis(500), memory_after: Some(1.5) }
    }
}

impl Bounds {
    /// The longest p99 beside an attack, after this one in the quiet phase.
    pub fn longest_p99(&self, quiet: Duration) -> Duration {
        quiet.mul_f64(self.p99.0).max(quiet + self.p99.1)
    }
}
