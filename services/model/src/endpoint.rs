//! Endpoints: where webhooks go.
//!
//! Values of headers and the queries of URLs may be credentials. Nothing here has a `Debug` that
//! shows them.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{EndpointId, Noun, ProjectId, Spec, limits, noun::Unknown};

/// Where webhooks go, without its secret.
pub type Endpoint = Noun<EndpointSpec>;

/// The project of an endpoint, which never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointFixed {
    pub project: ProjectId,
}

/// The fields of an endpoint that callers set. The default has no URL, so callers must give one.
///
/// The store keeps the fields that serde does not skip as one JSON object, in plain text. The
/// others have columns of their own. A new field needs a column only if it is a secret, or if a
/// query filters by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    #[serde(skip)]
    pub target: Target,
    #[serde(skip)]
    pub description: String,
    #[serde(skip)]
    pub state: EndpointState,
    #[serde(flatten)]
    pub limits: DeliveryLimits,
    /// Headers of every request.
    #[serde(skip)]
    pub headers: Headers,
    #[serde(skip)]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip)]
    pub owner: Option<String>,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The limits of the requests to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryLimits {
    /// The time that one exchange may take as a whole.
    #[serde(skip)]
    pub timeout: Duration,
    /// How many requests may be in flight at once.
    #[serde(skip)]
    pub max_in_flight: u32,
}

impl Spec for EndpointSpec {
    type Id = EndpointId;
    type Fixed = EndpointFixed;
}

impl Default for EndpointSpec {
    fn default() -> Self {
        Self {
            target: Target::Http { url: String::new() },
            description: String::new(),
            state: EndpointState::Active,
            limits: DeliveryLimits::default(),
            headers: Headers::default(),
            metadata: BTreeMap::new(),
            owner: None,
            unknown: Unknown::new(),
        }
    }
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(limits::TIMEOUT_MILLIS.1),
            max_in_flight: limits::MAX_IN_FLIGHT.1,
        }
    }
}

impl Endpoint {
    /// Returns the endpoint as readers see it, with a mask in place of the query of the URL and of
    /// each value of a header.
    #[must_use]
    pub fn masked(mut self) -> Self {
        self.spec.headers.values_mut().for_each(|value| MASK.clone_into(value));
        self.spec.target = self.spec.target.masked();
        self
    }
}

/// Stands for a value that is not shown. No real value equals it, because values of headers and
/// queries are ASCII.
pub const MASK: &str = "\u{2026}";

/// The mask as written by programs that encode URLs.
const ENCODED_MASK: &str = "%E2%80%A6";

/// Whether a URL has the mask in place of its query, or as the name of a parameter: programs that
/// take queries apart write the mask with `=` after it, and with the parameters that they add.
#[must_use]
pub fn has_masked_query(url: &str) -> bool {
    let Some((_, query)) = url.split_once('?') else { return false };
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let mut names = query
        .split('&')
        .map(|parameter| parameter.split_once('=').map_or(parameter, |(name, _)| name));
    names.any(|name| name == MASK || name.eq_ignore_ascii_case(ENCODED_MASK))
}

/// Headers by name in lower case.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(BTreeMap<String, String>);

impl Deref for Headers {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Headers {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl From<BTreeMap<String, String>> for Headers {
    fn from(headers: BTreeMap<String, String>) -> Self {
        Self(headers)
    }
}

impl<const N: usize> From<[(String, String); N]> for Headers {
    fn from(headers: [(String, String); N]) -> Self {
        Self(headers.into())
    }
}

impl IntoIterator for Headers {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Debug for Headers {
    /// Shows the names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What receives the webhooks. Tunnels, polling and queues can become further kinds.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// An HTTP server with its canonical URL.
    Http { url: String },
}

impl Target {
    /// Returns the kind as it is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
        }
    }

    /// Returns the target with a mask in place of the whole query of the URL, including the names
    /// of its parameters.
    #[must_use]
    pub fn masked(self) -> Self {
        match self {
            Self::Http { url } => Self::Http {
                url: match url.split_once('?') {
                    Some((base, _)) => format!("{base}?{MASK}"),
                    None => url,
                },
            },
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Http { url } = self.clone().masked();
        f.debug_struct("Http").field("url", &url).finish()
    }
}

/// Whether requests are sent to an endpoint. This is a gate: it never changes the endpoint's
/// pending rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum EndpointState {
    Active = 1,
    Paused = 2,
}

impl EndpointState {
    /// Returns the state with this stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Active),
            2 => Some(Self::Paused),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Timestamp, address::Policy, header, url::WebhookUrl};

    fn endpoint(url: &str, headers: Headers) -> Endpoint {
        let spec = EndpointSpec {
            target: Target::Http { url: url.to_owned() },
            headers,
            ..EndpointSpec::default()
        };
        let fixed = EndpointFixed { project: ProjectId::new(Timestamp(1), 2) };
        Endpoint::new(EndpointId::new(Timestamp(1), 1), fixed, spec, Timestamp(1))
    }

    proptest! {
        #[test]
        fn neither_masks_nor_debug_output_show_a_value(value in "[!-~]{8,40}",
            query in "[A-Z0-9=&]{8,40}") {
            let whole = endpoint(&format!("https://a.example/p?{query}"), [("x-key".to_owned(),
                value.clone())].into());
            let masked = whole.clone().masked();
            let Target::Http { url } = &masked.spec.target;
            prop_assert_eq!(url, "https://a.example/p?\u{2026}");
            prop_assert_eq!(masked.spec.headers["x-key"].as_str(), MASK);
            prop_assert_eq!(&masked.clone().masked(), &masked);
            let shown = format!("{whole:?}");
            prop_assert!(shown.contains("x-key") && shown.contains("https://a.example/p?"), "{}",
                shown);
            prop_assert!(!shown.contains(&query) && !shown.contains(&value), "{}", shown);
        }
    }

    #[test]
    fn a_mask_is_no_value() {
        let masked = endpoint("https://a.example/?a=b", Headers::default()).masked();
        let Target::Http { url } = &masked.spec.target;
        assert!(
            WebhookUrl::parse(url, &Policy::default()).is_err()
                && header::check("x-a", MASK).is_err()
        );
        // A client that encodes URLs turns the mask into a text that a URL may contain.
        let encoded = "https://a.example/?%e2%80%A6";
        assert!(WebhookUrl::parse(encoded, &Policy::default()).is_ok());
        assert!(has_masked_query(url) && has_masked_query(encoded));
        for query in [
            "…=",
            "%E2%80%A6=",
            "%e2%80%a6=&a=b",
            "a=b&%E2%80%A6",
            "a&…=x&b",
            "%E2%80%A6#part",
            "&%E2%80%a6&",
        ] {
            assert!(has_masked_query(&format!("https://a.example/?{query}")), "{query}");
        }
        for other in ["/", "/?", "/?a=%E2%80%A6", "/?a=…", "/?a%E2%80%A6=b", "/?a#&…", "/%E2%80%A6"]
        {
            assert!(!has_masked_query(&format!("https://a.example{other}")), "{other}");
        }
    }

    #[test]
    fn what_has_nothing_to_mask_stays_as_it_is() {
        let plain = endpoint("https://a.example/path", Headers::default());
        assert_eq!(plain.clone().masked(), plain);
    }
}
