//! The observations of the healthy tenant, by phase of an attack.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    time::{Duration, Instant},
};

/// The beginning and duration of something.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub took: Duration,
}

/// All observations.
#[derive(Debug, Default)]
pub struct Seen {
    pub published: usize,
    /// From a publish to each arrival.
    pub receipts: Vec<Sample>,
    /// From a publish to its answer.
    pub answers: Vec<Sample>,
    /// The times of arrivals, by path.
    pub arrivals: Vec<Vec<Instant>>,
    /// By how much the tenant itself was late to publish, because the machine was busy.
    pub late: Vec<Sample>,
    pub lost: usize,
    pub duplicates: usize,
    /// All other faults.
    pub wrong: Vec<String>,
    /// The number of answers by kind.
    pub told: BTreeMap<String, usize>,
    /// Returns the number of answers other than OK.
    pub timeline: String,
}

/// A period.
pub type Phase = Range<Instant>;

/// The figures of a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// The number of arrivals.
    pub arrived: usize,
    /// From a publish to an arrival.
    pub p50: Duration,
    pub p99: Duration,
    pub slowest: Duration,
    /// The longest time without an arrival on one of the paths.
    pub gap: Duration,
    /// The longest time by which the tenant itself was late, because gaps that it caused are not
    /// the server's.
    pub paused: Duration,
    /// The p99 from a publish to its answer.
    pub answered: Duration,
}

impl Seen {
    /// Returns the figures of a phase, by the times of publishing.
    pub fn in_phase(&self, phase: &Phase) -> Figures {
        let receipts = sorted(&self.receipts, phase);
        Figures {
            arrived: receipts.len(),
            p50: percentile(&receipts, 500),
            p99: percentile(&receipts, 990),
            slowest: receipts.last().copied().unwrap_or_default(),
            gap: self
                .arrivals
                .iter()
                .map(|arrivals| longest_gap(arrivals, phase))
                .max()
                .unwrap_or_default(),
            paused: sorted(&self.late, phase).last().copied().unwrap_or_default(),
            answered: percentile(&sorted(&self.answers, phase), 990),
        }
    }

    /// Returns the number of answers other than OK.
    pub fn refused(&self) -> usize {
        self.told
            .iter()
            .filter(|(told, _)| !["REST 200", "gRPC Ok"].contains(&told.as_str()))
            .map(|(_, count)| count)
            .sum()
    }
}

impl Figures {
    /// Returns the longest gap that the tenant did not cause.
    pub fn gap_of_the_server(&self) -> Duration {
        self.gap.saturating_sub(self.paused)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {:.1} p99 {:.1} slowest {:.0} gap {:.0} (own pause {:.0}) answer p99 {:.1} ms",
            millis(self.p50),
            millis(self.p99),
            millis(self.slowest),
            millis(self.gap),
            millis(self.paused),
            millis(self.answered)
        )
    }
}

fn sorted(samples: &[Sample], phase: &Phase) -> Vec<Duration> {
    let mut sorted: Vec<Duration> = samples
        .iter()
        .filter(|sample| phase.contains(&sample.at))
        .map(|sample| sample.took)
        .collect();
    sorted.sort_unstable();
    sorted
}

/// `part` in thousandths.
fn percentile(sorted: &[Duration], part: usize) -> Duration {
    sorted
        .get((sorted.len() * part / 1_000).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Returns the longest time without an arrival in a phase, including its beginning and end.
fn longest_gap(arrivals: &[Instant], phase: &Phase) -> Duration {
    let mut within: Vec<Instant> =
        arrivals.iter().copied().filter(|at| phase.contains(at)).collect();
    within.extend([phase.start, phase.end]);
    within.sort_unstable();
    within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[test]
fn figures_are_of_their_phase_only() {
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let sample = |millis, took| Sample { at: at(millis), took: Duration::from_millis(took) };
    let seen = Seen {
        receipts: vec![
            sample(0, 900),
            sample(1_000, 3),
            sample(1_100, 1),
            sample(1_200, 2),
            sample(3_000, 800),
        ],
        arrivals: vec![
            vec![at(900), at(1_003), at(1_101), at(1_602), at(3_800)],
            vec![at(1_000), at(1_500)],
        ],
        late: vec![sample(1_000, 60), sample(2_500, 700)],
        ..Seen::default()
    };
    let figures = seen.in_phase(&(at(1_000)..at(2_000)));
    let millis = Duration::from_millis;
    assert_eq!(
        (figures.arrived, figures.p50, figures.p99, figures.slowest),
        (3, millis(2), millis(3), millis(3))
    );
    assert_eq!((figures.gap, figures.paused), (millis(501), millis(60)));
    assert_eq!(figures.gap_of_the_server(), millis(441));
    assert_eq!(Seen::default().in_phase(&(at(0)..at(100))).gap, Duration::ZERO);
}
