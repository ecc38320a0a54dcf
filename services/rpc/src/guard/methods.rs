//! The public methods and their required scopes, read from the descriptors.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use outrider_model::Scope;
use outrider_proto::DESCRIPTORS;
use prost_reflect::{MethodDescriptor, ServiceDescriptor, Value};

/// Methods that need no API key: the health of a gateway, and reflection, which is off by default.
/// Every other method of a public service names a scope.
const WITHOUT_KEY: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A method that nobody may call: it names no scope, and it is not one that needs no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} names no scope: it lacks the option outrider.options.v1.scope, or the scope is not known"
)]
pub struct WithoutScope(pub String);

/// Packages whose services are public. All others are internal to roles.
const PUBLIC_PACKAGES: [&str; 3] =
    ["outrider.ingest.v1", "outrider.dispatch.v1", "outrider.admin.v1"];

/// Scopes of the public methods, by gRPC path.
static SCOPES: LazyLock<HashMap<String, Option<Scope>>> = LazyLock::new(|| {
    public_services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|m| (path(&m), scope(&m)))
        .collect()
});

/// Paths of the public methods that stream, in either direction.
static STREAMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let methods = public_services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .filter(|method| method.is_client_streaming() || method.is_server_streaming())
        .map(|method| path(&method))
        .collect()
});

/// Paths of the public methods whose clients send a stream.
static CLIENT_STREAMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let methods = public_services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.filter(MethodDescriptor::is_client_streaming).map(|method| path(&method)).collect()
});

/// Returns the services that the gateway serves.
pub fn public_services() -> impl Iterator<Item = ServiceDescriptor> {
    DESCRIPTORS.services().filter(|service| PUBLIC_PACKAGES.contains(&service.package_name()))
}

/// Returns the gRPC path of a method, `/package.Service/Method`.
#[must_use]
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Returns the scope of the public method at a gRPC path. Returns `None` if there is no such
/// method, or (an Outrider fault) it names no scope.
#[must_use]
pub fn required_scope(path: &str) -> Option<Scope> {
    SCOPES.get(path).copied().flatten()
}

/// Returns the scope that a caller of the method at a gRPC path needs, or `None` if the method
/// needs no key. A method without a scope is an error unless it is known to need no key: it would
/// be open to everyone.
pub fn scope_or_open(path: &str) -> Result<Option<Scope>, WithoutScope> {
    match required_scope(path) {
        None if !WITHOUT_KEY.contains(&path) => Err(WithoutScope(path.to_owned())),
        scope => Ok(scope),
    }
}

/// Succeeds if every public method names its scope.
pub fn check_scopes() -> Result<(), WithoutScope> {
    public_services().flat_map(|service| service.methods().collect::<Vec<_>>()).try_for_each(
        |method| {
            let path = path(&method);
            if required_scope(&path).is_some() { Ok(()) } else { Err(WithoutScope(path)) }
        },
    )
}

/// Whether the public method at a gRPC path streams, in either direction. A stream has no natural
/// end.
#[must_use]
pub fn streams(path: &str) -> bool {
    STREAMS.contains(path)
}

/// Whether the client of the public method at a gRPC path sends a stream.
#[must_use]
pub fn client_streams(path: &str) -> bool {
    CLIENT_STREAMS.contains(path)
}

fn scope(method: &MethodDescriptor) -> Option<Scope> {
    let extension = DESCRIPTORS.get_extension_by_name("outrider.options.v1.scope")?;
    match method.options().get_extension(&extension).as_ref() {
        Value::EnumNumber(number) => Scope::from_number(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_public_method_requires_a_scope_that_the_model_knows() {
        assert!(SCOPES.len() > 20);
        for (path, scope) in SCOPES.iter() {
            assert!(scope.is_some(), "{path} names no scope");
        }
    }

    #[test]
    fn a_method_without_a_scope_is_an_error_unless_it_is_known_to_need_no_key() {
        check_scopes().unwrap();
        assert!(scope_or_open("/outrider.dispatch.v1.EventService/GetEvent").unwrap().is_some());
        assert_eq!(scope_or_open("/grpc.health.v1.Health/Watch"), Ok(None));
        // Internal methods have no scopes, so none of them may become public.
        let error = scope_or_open("/outrider.internal.v1.KeyService/ResolveKey").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/outrider.internal.v1.KeyService/ResolveKey names no scope"),
            "{error}"
        );
        assert!(scope_or_open("/x").is_err());
    }

    #[test]
    fn streams_are_distinguished_from_single_calls() {
        assert!(streams("/outrider.dispatch.v1.EventService/TailEvents"));
        assert!(client_streams("/outrider.ingest.v1.IngestService/StreamEvents"));
        assert!(!client_streams("/outrider.dispatch.v1.EventService/TailEvents"));
        assert!(!streams("/outrider.dispatch.v1.EventService/GetEvent") && !streams("/x"));
    }

    #[test]
    fn the_model_and_the_protos_number_scopes_alike() {
        let scopes = DESCRIPTORS.get_enum_by_name("outrider.options.v1.Scope").unwrap();
        for value in scopes.values().filter(|value| value.number() != 0) {
            assert_eq!(Scope::from_number(value.number()).unwrap().to_string(), value.name());
        }
        assert_eq!(scopes.values().count(), Scope::ALL.len() + 1);
    }
}
