//! An organization with a project, and other objects for tests of configuration.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{
    ApiKeySpec, DeliveryLimits, Endpoint, EndpointSpec, EndpointState, Error, PageRequest,
    Principal, Project, ProjectSpec, Reason, Result, Scope, ScopeSet, SigningSecret, Subscription,
    SubscriptionSpec, Target, principal::Actor,
};

use crate::{NewApiKey, NewEndpoint, NewProject, NewSubscription, Store};

/// An organization with one project, and its operator.
pub struct Tenant {
    pub principal: Principal,
    pub project: Project,
}

pub async fn tenant(store: &Store, name: &str) -> Tenant {
    let organization = store.create_organization(Actor::System, name).await.unwrap();
    let principal = Principal::system(organization.id);
    let project = store.create_project(&principal, new_project(name), None).await.unwrap();
    Tenant { principal, project }
}

impl Tenant {
    pub async fn endpoint(&self, store: &Store) -> Endpoint {
        store.create_endpoint(&self.principal, self.project.id, new_endpoint(), None).await.unwrap()
    }

    pub async fn subscription(
        &self,
        store: &Store,
        endpoint: &Endpoint,
        pattern: &str,
    ) -> Subscription {
        let new = NewSubscription {
            id: None,
            endpoint: endpoint.id,
            spec: SubscriptionSpec {
                name: "all".to_owned(),
                event_types: vec![pattern.parse().unwrap()],
            },
        };
        store.create_subscription(&self.principal, self.project.id, new, None).await.unwrap()
    }

    /// The same principal, bound to the project.
    pub fn bound(&self) -> Principal {
        Principal { project: Some(self.project.id), ..self.principal.clone() }
    }
}

pub const SECRET: [u8; 32] = *b"this secret must not be readable";

pub fn new_project(name: &str) -> NewProject {
    let spec = ProjectSpec { name: name.to_owned(), ..ProjectSpec::default() };
    NewProject { id: None, spec }
}

pub fn new_endpoint() -> NewEndpoint {
    let spec = EndpointSpec {
        target: Target::Http { url: "https://example.com/hook?key=query-value".to_owned() },
        description: "a hook".to_owned(),
        state: EndpointState::Active,
        limits: DeliveryLimits { timeout: Duration::from_millis(1_500), max_in_flight: 7 },
        headers: [("x-tenant".to_owned(), "header value".to_owned())].into(),
        metadata: BTreeMap::from([("plan".to_owned(), "\"quoted\" ü".to_owned())]),
        ..EndpointSpec::default()
    };
    NewEndpoint { id: None, spec, secret: SigningSecret::from_bytes(&SECRET).unwrap() }
}

/// The same with another spec.
pub fn new_endpoint_with(change: impl FnOnce(&mut EndpointSpec)) -> NewEndpoint {
    let mut new = new_endpoint();
    change(&mut new.spec);
    new
}

pub fn new_api_key(scopes: &[Scope]) -> NewApiKey {
    let name = "key".to_owned();
    let spec = ApiKeySpec { name, scopes: scope_set(scopes), expires_at: None };
    NewApiKey { project: None, spec }
}

pub fn scope_set(scopes: &[Scope]) -> ScopeSet {
    scopes.iter().copied().collect()
}

pub fn first_page(size: u32) -> PageRequest {
    PageRequest { size, from: None }
}

#[track_caller]
pub fn assert_reason<T: std::fmt::Debug>(result: Result<T>, reason: Reason) {
    let error = result.unwrap_err();
    assert_eq!(error.reason, reason, "{error:?}");
}

/// Asserts the exact error for something that never existed.
#[track_caller]
pub fn assert_not_found<T: std::fmt::Debug>(result: Result<T>, what: &'static str) {
    assert_eq!(result.unwrap_err(), Error::not_found(what));
}
