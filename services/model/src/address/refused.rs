//! Why an address, a name or a port may not be reached.

/// Why an address or a name may not be reached. The text is fit for users of the API: it names no
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not allowed ({rule})")]
pub struct Refused {
    /// A stable name of the rule: lower-case letters, digits and hyphens.
    pub rule: &'static str,
    pub(super) what: &'static str,
    /// Which entry of [`Policy::deny`] it was. For operators only: it is not in the text.
    pub denied_by: Option<usize>,
}

impl Refused {
    /// By a rule's stable name and the noun phrase that says what it refuses.
    #[must_use]
    pub const fn new(rule: &'static str, what: &'static str) -> Self {
        Self { rule, what, denied_by: None }
    }

    /// Whether it is the port that may not be reached, whatever the host.
    #[must_use]
    pub fn is_of_port(&self) -> bool {
        self.rule.starts_with("port-")
    }
}
