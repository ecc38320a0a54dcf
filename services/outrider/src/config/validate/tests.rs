//! Which configurations are refused, and in which words.

use super::*;
use crate::config::Span;

#[test]
fn the_defaults_are_valid_and_impossible_pairs_are_not() {
    assert!(validate(&Config::default()).is_ok());
    let mut config = Config::default();
    config.queue.url = "redis://127.0.0.1/".into();
    assert!(validate(&config).unwrap_err().to_string().contains("queue.url"));
    config.database.url = "postgres://localhost/x".into();
    assert!(validate(&config).is_ok());
    config.database.url = "host=a,b dbname=x password='hunter2' traget_session_attrs=any".into();
    let why = validate(&config).unwrap_err().to_string();
    assert!(
        why.starts_with("database.url: ") && why.contains("did you mean target_session_attrs?"),
        "{why}"
    );
    assert!(!why.contains("hunter2"));
    config.database.url = "host=a,b dbname=x".into();
    assert!(validate(&config).is_ok());
    config.telemetry.sample_ratio = f64::NAN;
    assert!(validate(&config).unwrap_err().to_string().contains("telemetry.sample_ratio"));
    config.telemetry.sample_ratio = 0.0;
    config.gateway.listen = "8080".into();
    assert!(validate(&config).unwrap_err().to_string().contains("gateway.listen"));
}

#[test]
fn history_is_kept_for_a_day_at_least_or_for_ever() {
    let kept = |hours: u64| {
        let mut config = Config::default();
        config.dispatch.retention = Span::seconds(hours * 3_600);
        validate(&config).map_err(|error| error.to_string())
    };
    assert!(kept(0).is_ok() && kept(24).is_ok());
    assert!(kept(23).unwrap_err().starts_with("dispatch.retention: "));
}

#[test]
fn the_room_for_answers_holds_eight_of_what_is_kept() {
    let room = |unreported: usize, kept: usize| {
        let mut config = Config::default();
        (config.worker.unreported_bytes, config.worker.response_kept_bytes) = (unreported, kept);
        validate(&config).map_err(|error| error.to_string())
    };
    assert!(room(128 << 10, 16 << 10).is_ok() && room(8 << 10, 1 << 10).is_ok());
    for refused in [room((128 << 10) - 1, 16 << 10), room(64 << 20, (8 << 20) + 1)] {
        let refused = refused.unwrap_err();
        assert!(
            refused.starts_with("worker.unreported_bytes: ")
                && refused.contains("worker.response_kept_bytes"),
            "{refused}"
        );
    }
}

#[test]
fn files_of_tls_come_together() {
    let invalid = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        validate(&config).unwrap_err().to_string()
    };
    let alone = invalid(&|config| config.gateway.tls_private_key_file = "key.pem".into());
    assert!(
        alone.starts_with("gateway.tls_certificate_file: ")
            && alone.contains("gateway.tls_private_key_file"),
        "{alone}"
    );
    let no_authority = invalid(&|config| {
        config.internal.tls_certificate_file = "crt.pem".into();
        config.internal.tls_private_key_file = "key.pem".into();
    });
    assert!(no_authority.starts_with("internal.tls_ca_file: "), "{no_authority}");
    let plain = invalid(&|config| config.queue.tls_ca_file = "ca.pem".into());
    assert!(plain.starts_with("queue.tls_ca_file: ") && plain.contains("rediss://"), "{plain}");
}

#[test]
fn lists_of_destinations_are_bounded_and_have_nothing_twice() {
    let list = |texts: Vec<String>| {
        let mut config = Config::default();
        config.egress.deny = texts.iter().map(|text| Target(text.parse().unwrap())).collect();
        validate(&config).map_err(|error| error.to_string())
    };
    let many =
        |count: usize| (0..count).map(|number| format!("n{number}.example")).collect::<Vec<_>>();
    assert!(list(many(1_000)).is_ok());
    assert_eq!(list(many(1_001)).unwrap_err(), "egress.deny: must not have more than 1000 entries");
    let twice =
        list(vec!["10.0.0.1".into(), "x.example".into(), "10.0.0.1/32".into()]).unwrap_err();
    assert_eq!(twice, "egress.deny: has 10.0.0.1 twice, at 0 and at 2 (from 0)");
}
