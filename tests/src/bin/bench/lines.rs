//! Lines of the table of promised figures.

use crate::harm::Harm;

/// One figure.
pub struct Line {
    name: String,
    /// `None` for a figure without a promise.
    mark: Option<Mark>,
    measured: f64,
}

/// The promised bounds of a figure.
#[derive(Clone, Copy)]
struct Mark {
    must: f64,
    aim: f64,
    /// Whether higher is better.
    up: bool,
}

/// Whether a promise was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Aim,
    Must,
    Miss,
    Told,
}

/// Prints the header of the table.
pub fn head() {
    println!("\n| {:<74} | {:>8} | {:>8} | {:>9} |      |", "", "must", "aim", "measured");
    println!("|{:-<76}|{:->10}|{:->10}|{:->11}|------|", "", ":", ":", ":");
}

/// Prints the line of a row that failed, with the beginning of the reason.
pub fn failed(row: &str, error: &anyhow::Error) {
    let why = error.root_cause().to_string();
    let text: String =
        format!("{row}: {}", why.lines().next().unwrap_or_default()).chars().take(74).collect();
    println!("| {text:<74} | {:>8} | {:>8} | {:>9} | FAIL |", "-", "-", "-");
}

/// Returns the line of a figure that should be high.
pub fn more(name: impl Into<String>, must: f64, aim: f64, measured: f64) -> Line {
    Line { name: name.into(), mark: Some(Mark { must, aim, up: true }), measured }
}

/// Returns the line of a figure that should be low.
pub fn less(name: impl Into<String>, must: f64, aim: f64, measured: f64) -> Line {
    Line { name: name.into(), mark: Some(Mark { must, aim, up: false }), measured }
}

/// Returns the line of a figure without a promise.
pub fn told(name: impl Into<String>, measured: f64) -> Line {
    Line { name: name.into(), mark: None, measured }
}

/// Returns lines only if something was lost or duplicated.
pub fn wrong(harm: Harm) -> impl Iterator<Item = Line> {
    let Harm { lost, duplicates, findings } = harm;
    [("  lost", lost), ("  duplicates", duplicates), ("  findings of verify-ledger", findings)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| {
            less(name, 0.0, 0.0, f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
        })
}

impl Line {
    /// Whether the figure misses its bound.
    pub fn misses(&self) -> bool {
        self.verdict() == Verdict::Miss
    }

    fn verdict(&self) -> Verdict {
        let Some(Mark { must, aim, up }) = self.mark else { return Verdict::Told };
        let reaches = |mark: f64| if up { self.measured >= mark } else { self.measured <= mark };
        match (reaches(aim), reaches(must)) {
            (true, _) => Verdict::Aim,
            (_, true) => Verdict::Must,
            _ => Verdict::Miss,
        }
    }

    pub fn print(&self) {
        let verdict = match self.verdict() {
            Verdict::Aim => "aim",
            Verdict::Must => "must",
            Verdict::Miss => "MISS",
            Verdict::Told => "-",
        };
        let [must, aim] = match self.mark {
            Some(Mark { must, aim, .. }) => [must, aim].map(number),
            None => ["-"; 2].map(str::to_owned),
        };
        println!(
            "| {:<74} | {must:>8} | {aim:>8} | {:>9} | {verdict:<4} |",
            self.name,
            number(self.measured)
        );
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_go_by_the_direction_and_marks_belong_to_what_reaches_them() {
        let high = |measured| more("", 4_000.0, 6_500.0, measured).verdict();
        assert_eq!(
            [6_500.0, 6_499.0, 4_000.0, 3_999.0].map(high),
            [Verdict::Aim, Verdict::Must, Verdict::Must, Verdict::Miss]
        );
        let low = |measured| less("", 150.0, 60.0, measured).verdict();
        assert_eq!(
            [60.0, 61.0, 150.0, 151.0].map(low),
            [Verdict::Aim, Verdict::Must, Verdict::Must, Verdict::Miss]
        );
        assert_eq!(told("", 0.0).verdict(), Verdict::Told);
        // Nothing was measured: 0 of 0.
        assert!(less("", 1.2, 1.05, f64::NAN).misses() && more("", 1.2, 1.05, f64::NAN).misses());
    }

    #[test]
    fn harm_misses_and_none_has_no_line() {
        assert_eq!(wrong(Harm::default()).count(), 0);
        let lines: Vec<Line> = wrong(Harm { lost: 2, ..Harm::default() }).collect();
        assert!(lines.len() == 1 && lines[0].misses());
    }
}
