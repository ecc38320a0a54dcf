//! A destination in the lists of the egress: a network, an address or a name, with or without
//! ports.

use outrider_model::address::Entry;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One entry of `egress.allow` or `egress.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(pub Entry);

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Sources;

    #[test]
    fn entries_come_from_every_layer_and_a_bad_one_is_named_by_its_place() {
        let load =
            |flag: &str| Sources { flags: vec![flag.to_owned()], ..Sources::default() }.load();
        let config = load("egress.allow=10.20.0.0/16:8080, receiver ,[fd12::1]:443").unwrap();
        let texts: Vec<_> = config.egress.allow.iter().map(|target| target.0.to_string()).collect();
        assert_eq!(texts, ["10.20.0.0/16:8080", "receiver", "[fd12::1]:443"]);
        let environment = vec![("OUTRIDER_EGRESS_DENY".to_owned(), "*.bad.example".to_owned())];
        let config = Sources { environment, ..Sources::default() }.load().unwrap();
        assert_eq!(config.egress.deny.len(), 1);
        let error = load("egress.deny=example.com,10.20.0.1/16").unwrap_err().to_string();
        assert!(
            error.contains("egress.deny[1]") && error.contains("did you mean 10.20.0.0/16?"),
            "{error}"
        );
    }
}
