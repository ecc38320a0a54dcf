//! What can go wrong, in one enum of reasons that callers may rely on. `rpc` maps reasons to gRPC
//! codes and HTTP statuses.

use std::{borrow::Cow, fmt, time::Duration};

/// The result of all that can fail with a reason.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// Why a request failed. The text is stable and part of the API (`ErrorInfo.reason`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {$($(#[doc = $doc])* $name,)*}

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$name => $text,)*}
            }

            /// What it means and what to do, for the documentation.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {$(Self::$name => concat!($($doc,)*).trim_ascii(),)*}
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or over its limit; the violations name each. Correct the
    /// request.
    InvalidField = "INVALID_FIELD";
    /// The payload does not fit the schema of its event type, and the project rejects such events;
    /// the violations name each place. Correct the payload, or the schema.
    PayloadSchemaViolation = "PAYLOAD_SCHEMA_VIOLATION";
    /// The request is not well-formed: not HTTP, not JSON, not UTF-8, too deep, a key twice, an
    /// unknown field; in gRPC a broken frame or a message that does not decode. Correct the
    /// request.
    MalformedRequest = "MALFORMED_REQUEST";
    /// The request, or the answer that it asks for, is larger than allowed. Send less at once, or
    /// ask for a smaller page.
    TooLarge = "TOO_LARGE";
    /// Path and query are longer than allowed. Shorten the query.
    UriTooLong = "URI_TOO_LONG";
    /// The header fields of the request are larger, or more, than allowed. Send fewer or shorter
    /// ones.
    HeadersTooLarge = "HEADERS_TOO_LARGE";
    /// The content type, or the encoding of the messages, is not one that the server takes; the
    /// message names those that it takes.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE";
    /// The body came too slowly, and the connection is closed. Nothing took effect; send it again.
    TooSlow = "TOO_SLOW";
    /// No API key was sent, or it is not one. Send "Authorization: Bearer" and a key.
    MissingCredentials = "MISSING_CREDENTIALS";
    /// The API key is unknown, revoked or expired. Use another.
    InvalidCredentials = "INVALID_CREDENTIALS";
    /// The API key lacks the scope that the method requires; the message names it.
    MissingScope = "MISSING_SCOPE";
    /// The API key may not give what it does not have itself, or is bound to a project.
    BeyondOwnScope = "BEYOND_OWN_SCOPE";
    /// It does not exist, or the API key does not reach it.
    NotFound = "NOT_FOUND";
    /// No method or path of that name.
    UnknownMethod = "UNKNOWN_METHOD";
    /// The path exists with other HTTP methods; the Allow header names them.
    MethodNotAllowed = "METHOD_NOT_ALLOWED";
    /// An object with the given id exists.
    AlreadyExists = "ALREADY_EXISTS";
    /// The idempotency key or request id was used with another request. Use a new key for a new
    /// request.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT";
    /// The state of the object does not allow it; the message says why.
    FailedPrecondition = "FAILED_PRECONDITION";
    /// Deliveries of the event are pending, and need its payload. Wait until they ended, or cancel
    /// them by deleting their endpoints.
    DeliveriesPending = "DELIVERIES_PENDING";
    /// The payload of the event was erased: there is nothing to deliver any more. Publish it anew,
    /// if you have it.
    PayloadErased = "PAYLOAD_ERASED";
    /// The page token is not one of ours, or belongs to other filters. Begin with the first page.
    InvalidPageToken = "INVALID_PAGE_TOKEN";
    /// The cursor is from before what is kept, or of another database. Begin anew without one; what
    /// lies between is read from the lists.
    CursorExpired = "CURSOR_EXPIRED";
    /// The method answers server-sent events only, which the Accept header refuses. Accept
    /// text/event-stream.
    NotAcceptable = "NOT_ACCEPTABLE";
    /// A bounded queue is full. Retry after the time given.
    Overloaded = "OVERLOADED";
    /// The API key, its project or its organization has used up its share of something that all
    /// callers share; the message says whose share and of what. Nothing took effect. End something
    /// of the same kind, or retry after the time given.
    ShareExhausted = "SHARE_EXHAUSTED";
    /// A server that is needed does not answer. Whether the request took effect is unknown; retry
    /// with the same idempotency key.
    Unavailable = "UNAVAILABLE";
    /// The deadline of the request passed. Whether it took effect is unknown; retry with the same
    /// idempotency key.
    DeadlineExceeded = "DEADLINE_EXCEEDED";
    /// The server is shutting down and took no more. Connect again after the time given, and resend
    /// what was not acknowledged.
    ShuttingDown = "SHUTTING_DOWN";
    /// Nothing came on an open stream or upload for too long. Connect again when there is something
    /// to send.
    StreamIdle = "STREAM_IDLE";
    /// A fault of the server. Report it with the request id.
    Internal = "INTERNAL";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field in the request, as in `event.headers["x-a"]` or
    /// `events[3].event_type`.
    pub field: String,
    /// What is wrong, with the limit.
    pub description: String,
}

/// A failure that a caller may see: it never holds secrets, addresses of the inside or SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The stable reason.
    pub reason: Reason,
    /// For developers, in English.
    pub message: Cow<'static, str>,
    /// Fields that are wrong.
    pub violations: Vec<FieldViolation>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// With a reason and a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    /// One field is wrong.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::fields(vec![FieldViolation { field: field.into(), description: description.into() }])
    }

    /// Fields are wrong; `violations` is not empty.
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

    /// A thing of this kind is not there for the caller.
    #[must_use]
    pub fn not_found(what: &'static str) -> Self {
        Self::new(Reason::NotFound, format!("{what} not found"))
    }

    /// The outcome is unknown; a retry may help.
    #[must_use]
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Reason::Unavailable, message)
        }
    }

    /// The process ends; another may be there already.
    #[must_use]
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down: connect again";
        Self {
            retry_after: Some(Duration::from_millis(100)),
            ..Self::new(Reason::ShuttingDown, message)
        }
    }

    /// A bounded queue is full.
    #[must_use]
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(Reason::Overloaded, message) }
    }

    /// A caller has used up its share of a bounded resource.
    #[must_use]
    pub fn share_exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Reason::ShareExhausted, message)
        }
    }

    /// Whether it was refused because too much is under way, and had no effect: the same request
    /// may succeed later.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        matches!(self.reason, Reason::Overloaded | Reason::ShareExhausted)
    }

    /// A fault of ours.
    #[must_use]
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// The same error with `prefix` before each field's path.
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

/// Collects what is wrong with the fields of one request.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A field is wrong.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), description: description.into() });
    }

    /// A field is wrong unless `good`.
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

    /// The value, or a violation that the error describes.
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

    /// OK when nothing is wrong.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::fields(self.0)) }
    }
}
