//! Errors with stable reasons that callers may rely on. `rpc` maps reasons to gRPC codes and HTTP
//! statuses.

use std::{borrow::Cow, fmt, time::Duration};

/// The result of an operation that can fail with a reason.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// The reason why a request failed. Its text is stable and part of the API
        /// (`ErrorInfo.reason`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {$($(#[doc = $doc])* $name,)*}

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the stable text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$name => $text,)*}
            }

            /// Returns its meaning and what to do, for the documentation.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {$(Self::$name => concat!($($doc,)*).trim_ascii(),)*}
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or over its limit. The violations name each field. Correct the
    /// request.
    InvalidField = "INVALID_FIELD";
    /// The payload violates the schema of its event type, and the project rejects such events. The
    /// violations name each place. Correct the payload or the schema.
    PayloadSchemaViolation = "PAYLOAD_SCHEMA_VIOLATION";
    /// The request is not well-formed: invalid HTTP, JSON or UTF-8, nesting that is too deep, a
    /// duplicate key, an unknown field; in gRPC, a broken frame or a message that cannot be
    /// decoded. Correct the request.
    MalformedRequest = "MALFORMED_REQUEST";
    /// The request or its response is larger than allowed. Send less at once, or request a smaller
    /// page.
    TooLarge = "TOO_LARGE";
    /// Path and query are longer than allowed. Shorten the query.
    UriTooLong = "URI_TOO_LONG";
    /// The header fields of the request exceed the limit in number or size. Send fewer or shorter
    /// ones.
    HeadersTooLarge = "HEADERS_TOO_LARGE";
    /// The server does not accept the content type, or the encoding of the messages. The message
    /// names those that it accepts.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE";
    /// The body arrived too slowly, and the connection is closed. Nothing took effect. Send the
    /// request again.
    TooSlow = "TOO_SLOW";
    /// The API key is missing or malformed. Send "Authorization: Bearer" and a key.
    MissingCredentials = "MISSING_CREDENTIALS";
    /// The API key is unknown, revoked or expired. Use another key.
    InvalidCredentials = "INVALID_CREDENTIALS";
    /// The API key lacks the scope that the method requires. The message names the scope.
    MissingScope = "MISSING_SCOPE";
    /// The API key cannot grant more than it has itself, or is bound to a project.
    BeyondOwnScope = "BEYOND_OWN_SCOPE";
    /// The object does not exist, or the API key has no access to it.
    NotFound = "NOT_FOUND";
    /// There is no method or path of this name.
    UnknownMethod = "UNKNOWN_METHOD";
    /// The path exists with other HTTP methods, which the Allow header lists.
    MethodNotAllowed = "METHOD_NOT_ALLOWED";
    /// An object with the given ID already exists.
    AlreadyExists = "ALREADY_EXISTS";
    /// The idempotency key or request ID was used with another request. Use a new key for a new
    /// request.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT";
    /// The state of the object does not allow the request. The message says why.
    FailedPrecondition = "FAILED_PRECONDITION";
    /// Deliveries of the event are pending and need its payload. Wait until they have ended, or
    /// cancel them by deleting their endpoints.
    DeliveriesPending = "DELIVERIES_PENDING";
    /// The payload of the event was erased, so it cannot be delivered. Publish the event again if
    /// you have it.
    PayloadErased = "PAYLOAD_ERASED";
    /// The page token is invalid, or belongs to a list with other filters. Begin with the first
    /// page.
    InvalidPageToken = "INVALID_PAGE_TOKEN";
    /// The cursor is older than the retained history, or is from another database. Begin again
    /// without a cursor, and read the gap from the lists.
    CursorExpired = "CURSOR_EXPIRED";
    /// The method only returns server-sent events, which the Accept header excludes. Accept
    /// text/event-stream.
    NotAcceptable = "NOT_ACCEPTABLE";
    /// Creates the error that a bounded queue is full. Retry after the time given.
    Overloaded = "OVERLOADED";
    /// The API key, its project or its organization has used up its share of a resource that
    /// callers share. The message names the share and the resource. Nothing took effect. End
    /// something of the same kind, or retry after the time given.
    ShareExhausted = "SHARE_EXHAUSTED";
    /// A server that is needed does not answer. It is unknown whether the request took effect.
    /// Retry with the same idempotency key.
    Unavailable = "UNAVAILABLE";
    /// The deadline of the request has passed. It is unknown whether the request took effect. Retry
    /// with the same idempotency key.
    DeadlineExceeded = "DEADLINE_EXCEEDED";
    /// The server is shutting down and accepts no more. Connect again after the time given, and
    /// resend everything that was not acknowledged.
    ShuttingDown = "SHUTTING_DOWN";
    /// Nothing arrived on an open stream or upload for too long. Connect again when there is
    /// something to send.
    StreamIdle = "STREAM_IDLE";
    /// The server has a fault. Report it with the request ID.
    Internal = "INTERNAL";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A violation of a rule by one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field in the request, as in `event.headers["x-a"]` or
    /// `events[3].event_type`.
    pub field: String,
    /// The violation, with the limit.
    pub description: String,
}

/// An error that a caller may see. It never contains secrets, internal addresses or SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The stable reason.
    pub reason: Reason,
    /// For developers, in English.
    pub message: Cow<'static, str>,
    /// The violations by fields.
    pub violations: Vec<FieldViolation>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Creates an error with a reason and a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    /// Creates an error about one field.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::fields(vec![FieldViolation { field: field.into(), description: description.into() }])
    }

    /// Creates an error about fields. `violations` must not be empty.
    #[must_use]
    pub fn fields(violations: Vec<FieldViolation>) -> Self {
        let message = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            reason: Reason::InvalidField,
            message: message.into(),
            violations,
            retry_after: None,
        }
    }

    /// Creates the error that an object of this kind does not exist for the caller.
    #[must_use]
    pub fn not_found(what: &'static str) -> Self {
        Self::new(Reason::NotFound, format!("{what} not found"))
    }

    /// Creates the error that the outcome is unknown and a retry may help.
    #[must_use]
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Reason::Unavailable, message)
        }
    }

    /// Creates the error that the process is ending. Another may be running already.
    #[must_use]
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down: connect again";
        Self {
            retry_after: Some(Duration::from_millis(100)),
            ..Self::new(Reason::ShuttingDown, message)
        }
    }

    /// Creates the error that a bounded queue is full.
    #[must_use]
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(Reason::Overloaded, message) }
    }

    /// Creates the error that a caller has used up its share of a resource.
    #[must_use]
    pub fn share_exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Reason::ShareExhausted, message)
        }
    }

    /// Whether the request was refused because of load, and had no effect. The same request may
    /// succeed later.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        matches!(self.reason, Reason::Overloaded | Reason::ShareExhausted)
    }

    /// Creates the error of an internal fault.
    #[must_use]
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// Returns the error with `prefix` before the path of each field.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        if self.violations.is_empty() {
            return self;
        }
        for violation in &mut self.violations {
            violation.field = format!("{prefix}.{}", violation.field);
        }
        Self { reason: self.reason, retry_after: self.retry_after, ..Self::fields(self.violations) }
    }
}

/// Collects the violations of one request.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Returns an empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a violation.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), description: description.into() });
    }

    /// Adds a violation unless `good`.
    pub fn require(
        &mut self,
        good: bool,
        field: impl Into<String>,
        description: impl Into<String>,
    ) {
        if !good {
            self.add(field, description);
        }
    }

    /// Returns the value, or adds the error as a violation.
    pub fn check<T>(
        &mut self,
        field: impl Into<String>,
        result: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, error.to_string());
                None
            }
        }
    }

    /// Succeeds if there are no violations.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::fields(self.0)) }
    }
}
