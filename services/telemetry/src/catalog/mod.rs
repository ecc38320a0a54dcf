//! All metrics, by the part of Outrider that has them. `docs/metrics.md` is generated from here.
//!
//! The tests enforce these rules: names begin with `outrider_` (or `process_`, by the convention of
//! all Prometheus clients) and end with their base unit; counters end with `_total`; labels have
//! few values and never name a tenant, an id or a path.

pub mod dispatch;
pub mod egress;
pub mod gateway;
pub mod ingest;
pub mod process;
pub mod queue;
pub mod shares;
pub mod store;
pub mod telemetry;
pub mod worker;

use crate::metrics::Section;

/// Every section, in the order of an event's path.
pub static SECTIONS: [&Section; 10] = [
    &gateway::SECTION,
    &ingest::SECTION,
    &dispatch::SECTION,
    &queue::SECTION,
    &worker::SECTION,
    &egress::SECTION,
    &store::SECTION,
    &shares::SECTION,
    &telemetry::SECTION,
    &process::SECTION,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The permitted labels. The code that sets a label lists its values.
    const LABELS: [&str; 21] = [
        "probe",
        "protocol",
        "method",
        "route",
        "status",
        "result",
        "reason",
        "outcome",
        "cause",
        "command",
        "needed",
        "shard",
        "state",
        "kind",
        "rule",
        "direction",
        "version",
        "commit",
        "resource",
        "share",
        "bound",
    ];

    #[test]
    fn every_metric_can_be_made_and_is_named_by_the_rules() {
        let mut names = HashSet::new();
        for section in SECTIONS {
            for entry in section.entries {
                let name = entry.declaration.name;
                // Creating the metric checks the syntax of names and labels.
                assert_eq!((entry.collector)().desc()[0].fq_name, name);
                assert!(names.insert(name), "{name} is there twice");
                let conventional = section.name == "process" && name.starts_with("process_");
                assert!(conventional || name.starts_with("outrider_"), "{name}");
                assert_eq!(entry.kind == "counter", name.ends_with("_total"), "{name}");
                let help = entry.declaration.help.trim();
                assert!(help.len() > 10 && help.ends_with('.'), "{name}: {help}");
                for label in entry.declaration.labels {
                    assert!(LABELS.contains(label), "{name} has the unknown label {label}");
                }
                assert_eq!(
                    entry.kind == "histogram",
                    !entry.declaration.buckets.is_empty(),
                    "{name}"
                );
                assert!(
                    !name.contains("_ms") && !name.contains("_micros"),
                    "{name}: base units only"
                );
            }
        }
        assert!(names.len() > 40);
    }
}
