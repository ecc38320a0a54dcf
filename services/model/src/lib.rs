//! The nouns of Outrider and their pure rules: ids, events, endpoints, subscriptions, routing, the
//! delivery's state machine, retry schedules, signatures, errors.
//!
//! It must never do IO, read a clock or draw randomness: time and random numbers are arguments. It
//! knows no wire types and no SQL.

pub mod address;
pub mod delivery;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod event_type;
pub mod header;
pub mod id;
pub mod job;
pub mod json;
pub mod limits;
pub mod noun;
pub mod page;
pub mod principal;
pub mod project;
mod punycode;
pub mod retry;
pub mod router;
pub mod scope;
pub mod secret;
pub mod shares;
pub mod signature;
pub mod subscription;
pub mod text;
pub mod time;
pub mod url;
pub mod window;

pub use delivery::{
    Attempt, AttemptOutcome, Delivery, DeliveryReason, DeliveryStatus, HoldReason, PendingDelivery,
    Verdict,
};
pub use endpoint::{
    DeliveryLimits, Endpoint, EndpointFixed, EndpointSpec, EndpointState, Headers, Target,
};
pub use error::{Error, FieldViolation, Reason, Result};
pub use event::{
    AcceptedEvent, AdmittedEvent, Event, Idempotency, Origin, RoutingOutcome, Trace, UsedKey,
};
pub use event_type::{
    EventType, EventTypeDefinition, EventTypeFixed, EventTypePattern, EventTypeSpec,
};
pub use id::{
    ApiKeyId, AttemptId, DeliveryId, EndpointId, EventId, EventTypeId, OrganizationId, ProjectId,
    SecretId, SubscriptionId,
};
pub use job::{
    AttemptResult, Job, JobEvent, JobPayload, JobReport, JobResult, Receipt, ReportedJob,
};
pub use noun::{Meta, Noun, Spec};
pub use page::{Page, PageRequest};
pub use principal::Principal;
pub use project::{
    ApiKey, ApiKeyFixed, ApiKeySpec, Organization, OrganizationSpec, Project, ProjectFixed,
    ProjectSpec, SchemaValidation,
};
pub use retry::RetryPolicy;
pub use router::{Route, Router};
pub use scope::{Scope, ScopeSet};
pub use secret::{HashedToken, SigningSecret, Token};
pub use shares::{FairShares, Recipient};
pub use subscription::{Subscription, SubscriptionFixed, SubscriptionSpec};
pub use time::Timestamp;
pub use window::{Heard, WindowRules, Windows};
