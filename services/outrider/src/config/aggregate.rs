//! The whole configuration. Each section belongs to the role that reads it.

use outrider_settings::{Field, Invalid, Section};
use serde::{Deserialize, Serialize};

use super::sections::{Internal, Operations, Secrets};

/// Describes a section.
pub struct Described {
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: &'static [Field],
}

/// Aggregates the sections.
macro_rules! sections {
    ($($name:ident: $section:ty,)*) => {
        /// Everything that operators may set.
        #[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $(pub $name: $section,)*
        }

        impl Config {
            /// Refuses the first value that its section refuses.
            pub fn check_sections(&self) -> Result<(), Invalid> {
                $(self.$name.check()?;)*
                Ok(())
            }
        }

        /// The sections, in order.
        pub const SECTIONS: &[Described] = &[$(
            Described {
                name: <$section as Section>::NAME,
                doc: <$section as Section>::DOC,
                fields: <$section as Section>::FIELDS,
            },
        )*];
    };
}

sections! {
    database: outrider_store::DatabaseOptions,
    directory: outrider_store::DirectoryOptions,
    queue: outrider_queue::Options,
    secrets: Secrets,
    internal: Internal,
    log: outrider_telemetry::LogOptions,
    telemetry: outrider_telemetry::ExportOptions,
    operations: Operations,
    gateway: outrider_gateway::Options,
    ingest: outrider_ingest::Options,
    dispatch: outrider_dispatch::Options,
    admin: outrider_admin::Options,
    worker: outrider_worker::Options,
    egress: outrider_egress::Options,
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    #[test]
    fn each_section_has_its_own_name_and_describes_each_key() {
        let defaults = Table::try_from(Config::default()).unwrap();
        // TOML sorts the keys.
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let names = sorted(SECTIONS.iter().map(|section| section.name).collect());
        assert_eq!(names, defaults.keys().collect::<Vec<_>>());
        for section in SECTIONS {
            let keys = defaults[section.name].as_table().map(Table::keys).into_iter().flatten();
            let fields = section.fields.iter().map(|field| field.name).collect();
            assert_eq!(sorted(fields), keys.collect::<Vec<_>>(), "{}", section.name);
            assert!(section.fields.iter().all(|field| !field.doc.trim().is_empty()));
        }
        assert!(matches!(defaults["queue"]["lease"], Value::String(_)));
    }
}
