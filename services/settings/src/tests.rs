//! A section of every type, read and written as TOML.

use std::{net::IpAddr, time::Duration};

use crate::{
    Hidden, Invalid, Kind, MIB, OneOf, Parsed, Port, Positive, Section as _, because, days, hours,
    listen_address, millis, or_empty, or_zero, seconds, section,
};

section! {
    /// What is tested,
    /// on two lines.
    pub struct Sample in "sample" {
        /// A flag.
        pub flag: bool = true;
        /// A size.
        pub room_bytes: usize = 2 * MIB, 1..=4 * MIB;
        /// A number of things.
        pub things: u32 = 7, 1..;
        /// At most.
        pub more: u64 = 0, ..=9;
        /// A ratio.
        pub ratio: f64 = 0.5, 0.0..=1.0;
        /// A length.
        pub length: Duration = millis(1_500), because(seconds(1).., "less is too hasty");
        /// A length but zero.
        pub wait: Duration = seconds(90), Positive;
        /// A length or zero.
        pub kept: Duration = days(30), or_zero(hours(24).., "to keep everything");
        /// A choice.
        pub choice: String = "text".into(), OneOf(&["text", "json"]);
        /// An address and a port.
        pub listen: String = String::new(), or_empty(listen_address());
        /// A secret.
        pub secret: Hidden = Hidden::default();
        /// An address.
        pub source: Option<IpAddr> = None;
        /// Numbers.
        pub ports: Vec<Port> = vec![Port(22)];
        /// Lengths.
        pub schedule: Vec<Duration> = vec![seconds(5)];
        /// What is parsed.
        pub parsed: Vec<Parsed<IpAddr>> = Vec::new();
    }
    with rules;
}

fn rules(sample: &Sample) -> Result<(), Invalid> {
    Invalid::unless(sample.things != 13, "sample.things", "must be lucky")
}

fn read(text: &str) -> Result<Sample, String> {
    let value: toml::Value = toml::from_str(text).unwrap();
    serde_path_to_error::deserialize(value)
        .map_err(|error| format!("{}: {}", error.path(), error.inner().to_string().trim()))
}

fn refused(text: &str) -> String {
    read(text).unwrap().check().unwrap_err().to_string()
}

#[test]
fn a_section_is_read_as_it_is_written() {
    let text = toml::to_string(&Sample::default()).unwrap();
    assert!(text.contains("length = \"1s 500ms\"\n"), "{text}");
    assert!(text.contains("source = \"\"\n"), "{text}");
    assert_eq!(read(&text).unwrap(), Sample::default());
    assert!(Sample::default().check().is_ok());
    let other = read(
        "length = \"2s\"\nsource = \"127.0.0.1\"\nports = [\"25\", 26]\n\
         schedule = [\"1s\", \"2m\"]\nparsed = [\"::1\"]\nsecret = \"x\"",
    )
    .unwrap();
    assert_eq!(other.length, seconds(2));
    assert_eq!(other.source, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(other.ports, [Port(25), Port(26)]);
    assert_eq!(other.schedule, [seconds(1), seconds(120)]);
    assert_eq!(other.parsed, [Parsed("::1".parse().unwrap())]);
    assert_eq!(read(&toml::to_string(&other).unwrap()).unwrap(), other);
    assert!(!format!("{other:?}").contains("\"x\""));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, place) in [
        ("lenght = \"1s\"", "lenght: unknown field"),
        ("length = \"1 parsec\"", "length: \"1 parsec\" is not a length of time"),
        ("things = \"x\"", "things: invalid type"),
        ("source = \"here\"", "source: must be an IP address"),
        ("parsed = [\"::1\", \"x\"]", "parsed[1]: invalid IP address syntax"),
        ("schedule = [\"1\"]", "schedule[0]: \"1\" is not a length of time"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(place), "{text}: {error}");
    }
}

#[test]
fn values_out_of_their_limits_are_refused_in_words() {
    for (text, why) in [
        ("room_bytes = 0", "room_bytes: must be 1 to 4194304"),
        ("things = 0", "things: must be at least 1"),
        ("things = 13", "things: must be lucky"),
        ("more = 10", "more: must be at most 9"),
        ("ratio = nan", "ratio: must be 0 to 1"),
        ("length = \"1ms\"", "length: must be at least 1s: less is too hasty"),
        ("wait = \"0s\"", "wait: must be more than 0s"),
        ("kept = \"1h\"", "kept: must be at least 1day, or 0s to keep everything"),
        ("choice = \"xml\"", "choice: must be \"text\" or \"json\""),
        (
            "listen = \"8080\"",
            "listen: must be an address and a port, such as 127.0.0.1:8080, or empty",
        ),
    ] {
        assert_eq!(refused(text), format!("sample.{why}"), "{text}");
    }
    assert!(read("kept = \"0s\"").unwrap().check().is_ok());
}

#[test]
fn fields_are_described() {
    assert_eq!((Sample::NAME, Sample::DOC), ("sample", " What is tested,\n on two lines.\n"));
    let field = |name: &str| Sample::FIELDS.iter().find(|field| field.name == name).unwrap();
    let room = field("room_bytes");
    assert_eq!((room.key, room.doc, room.kind), ("sample.room_bytes", " A size.\n", Kind::Whole));
    assert!(room.is_size() && !field("things").is_size());
    assert_eq!((room.limit)().as_deref(), Some("1 to 4194304"));
    assert_eq!((field("flag").limit)(), None);
    assert_eq!(field("secret").kind, Kind::Secret);
}
