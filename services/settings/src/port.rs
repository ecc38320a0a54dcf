//! A port in the configuration: a number in a file, text in a variable or a flag.

use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port from 1 to 65535")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Port, E> {
                let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
                port.map(|port| Port(port.get()))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                let port = text.parse::<NonZeroU16>();
                port.map(|port| Port(port.get()))
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Ports {
        ports: Vec<Port>,
    }

    #[test]
    fn numbers_and_texts_are_ports_and_others_are_refused_by_name() {
        let ports: Ports = toml::from_str("ports = [22, \"6379\"]").unwrap();
        assert_eq!(ports.ports, [Port(22), Port(6379)]);
        for wrong in ["[0]", "[65536]", "[-1]", "[\"ssh\"]", "[\"0\"]"] {
            let error = toml::from_str::<Ports>(&format!("ports = {wrong}")).err().unwrap();
            assert!(error.to_string().contains("a port from 1 to 65535"), "{wrong}: {error}");
        }
    }
}
