//! The length and force of attacks, and the bounds of their effects.

use std::time::Duration;

/// The force of attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// For a debug build beside other tests.
    Part,
    /// The force that a server can expect.
    Full,
}

/// The resource that an attack uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Shares. The attack must not be noticeable.
    Shares,
    /// The processor, which is not divided. Others become slower but never stop.
    Processor,
}

/// The bounds of the effects on the healthy tenant.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The p99 of receipts, as a multiple of the quiet phase, and how much longer it may be in any
    /// case.
    pub p99: (f64, Duration),
    pub gap: Duration,
    /// The highest memory of any process, in bytes.
    pub memory: u64,
    /// CPU time of all processes together after the attack, in a second.
    pub cpu_after: Duration,
    /// The memory of each process after a minute of idleness, as a multiple of that before. `None`
    /// if it is not judged.
    pub memory_after: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub quiet: Duration,
    pub attack: Duration,
    pub after: Duration,
    force: Force,
    /// Whether the promised figures are judged, for a release build on an otherwise idle machine.
    promised: bool,
}

const MIB: u64 = 1 << 20;

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("OUTRIDER_TEST_HOSTILE_{name}")).ok().filter(|value| !value.is_empty())
}

fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(variable(name).and_then(|value| value.parse().ok()).unwrap_or(default))
}

/// Whether the attack with this name is requested. Without the variable, all are.
pub fn is_asked_for(name: &str) -> bool {
    variable("ATTACKS").is_none_or(|names| names.split(',').any(|asked| asked.trim() == name))
}

impl Plan {
    /// The bounded part, which runs with other tests.
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

    /// Returns the force of an attack. Beside all others, an attack on the processor has less
    /// force, because together they must not need more than the machine has.
    pub fn force(&self, takes: Takes, alone: bool) -> Force {
        if takes == Takes::Processor && !alone { Force::Part } else { self.force }
    }

    /// Returns the bounds beside one attack, or beside several.
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
        // All attacks at once reach several of the bounds in docs/operations.md under "Memory".
        let memory = if alone { 512 } else { 768 } * MIB;
        Bounds { p99, gap, memory, cpu_after: millis(500), memory_after: Some(1.5) }
    }
}

impl Bounds {
    /// Returns the longest permitted p99 beside an attack, from that of the quiet phase.
    pub fn longest_p99(&self, quiet: Duration) -> Duration {
        quiet.mul_f64(self.p99.0).max(quiet + self.p99.1)
    }
}
