//! Sections of the configuration.

use crate::{Invalid, Kind, Limit};

/// A section: a struct whose fields are settings. Declared with [`section!`](crate::section!).
pub trait Section: Default {
    /// Its name in the configuration: `gateway`.
    const NAME: &'static str;
    /// What it is for; lines as in the source.
    const DOC: &'static str;
    /// Its fields, in the order of the struct.
    const FIELDS: &'static [Field];

    /// Refuses the first value that is out of its limit, or breaks a rule between fields.
    fn check(&self) -> Result<(), Invalid>;
}

/// The description of a field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key with its section: `gateway.listen`.
    pub key: &'static str,
    /// The name in the section: `listen`.
    pub name: &'static str,
    /// What it means; lines as in the source.
    pub doc: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// What a value must be, if it is limited; follows "must be".
    pub limit: fn() -> Option<String>,
}

impl Field {
    /// Whether the value is a size in bytes.
    #[must_use]
    pub fn is_size(&self) -> bool {
        self.kind == Kind::Whole && (self.name.ends_with("_bytes") || self.name.ends_with("_size"))
    }
}

/// Refuses a value that is out of its limit.
#[doc(hidden)]
pub fn check<T>(key: &str, value: &T, limit: &impl Limit<T>) -> Result<(), Invalid> {
    if limit.admits(value) {
        return Ok(());
    }
    Err(Invalid::new(key, format!("must be {}", limit.words())))
}

/// The words of a limit.
#[doc(hidden)]
pub fn words<T>(limit: &impl Limit<T>) -> String {
    limit.words()
}

/// Declares a section of the configuration.
///
/// Each field has its documentation, which becomes the reference, its default, and after a comma
/// its limit, if it has one: a range, or another [`Limit`]. `with` names a function that checks
/// rules between fields.
///
/// ```
/// use std::time::Duration;
///
/// use outrider_settings::{Invalid, Section as _, section, seconds};
///
/// section! {
///     /// The role that knocks.
///     pub struct Options in "knocker" {
///         /// How long to wait for an answer.
///         pub patience: Duration = seconds(5), seconds(1)..;
///         /// Knocks before it gives up.
///         pub knocks: u32 = 3, 1..=10;
///         /// Whether to ring first.
///         pub rings: bool = false;
///     }
///     with rules;
/// }
///
/// fn rules(options: &Options) -> Result<(), Invalid> {
///     Invalid::unless(options.knocks < 10 || options.rings, "knocker.knocks", "must be quieter")
/// }
///
/// assert!(Options::default().check().is_ok());
/// let hasty = Options { patience: Duration::ZERO, ..Options::default() };
/// assert_eq!(hasty.check().unwrap_err().to_string(), "knocker.patience: must be at least 1s");
/// ```
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $section:ident in $name:literal {
            $(
                $(#[doc = $text:literal])*
                pub $field:ident: $type:ty = $default:expr $(, $limit:expr)?;
            )*
        }
        $(with $rules:path;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "outrider_settings::serde", default, deny_unknown_fields)]
        pub struct $section {
            $(
                $(#[doc = $text])*
                #[serde(with = "outrider_settings::field")]
                pub $field: $type,
            )*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::Section for $section {
            const NAME: &'static str = $name;
            const DOC: &'static str = concat!($($doc, "\n",)*);
            const FIELDS: &'static [$crate::Field] = &[$(
                $crate::Field {
                    key: concat!($name, ".", stringify!($field)),
                    name: stringify!($field),
                    doc: concat!($($text, "\n",)*),
                    kind: <$type as $crate::Setting>::KIND,
                    limit: || {
                        let words: &[String] = &[$($crate::words::<$type>(&$limit))?];
                        words.first().cloned()
                    },
                },
            )*];

            fn check(&self) -> Result<(), $crate::Invalid> {
                $($(
                    let key = concat!($name, ".", stringify!($field));
                    $crate::check::<$type>(key, &self.$field, &$limit)?;
                )?)*
                $($rules(self)?;)?
                Ok(())
            }
        }
    };
}
