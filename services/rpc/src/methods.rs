//! The public methods and the scope that each requires, from the descriptors.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use outrider_model::Scope;
use outrider_proto::DESCRIPTORS;
use prost_reflect::{MethodDescriptor, ServiceDescriptor, Value};

/// The packages whose services are public. All others stay between roles.
const PUBLIC_PACKAGES: [&str; 3] = ["outrider.ingest.v1", "outrider.dispatch.v1", "outrider.admin.v1"];

/// The scope of each public method, by its gRPC path.
static SCOPES: LazyLock<HashMap<String, Option<Scope>>> = LazyLock::new(|| {
    public_services().flat_map(|service| service.methods().collect::<Vec<_>>()).map(|m| (path(&m), scope(&m))).collect()
});

/// The paths of the public methods that stream, in either direction.
static STREAMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let methods = public_services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.filter(|method| method.is_client_streaming() || method.is_server_streaming()).map(|method| path(&method)).collect()
});

/// The paths of the public methods whose clients send a stream.
static CLIENT_STREAMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let methods = public_services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.filter(MethodDescriptor::is_client_streaming).map(|method| path(&method)).collect()
});

/// The services that the gateway mounts.
pub fn public_services() -> impl Iterator<Item = ServiceDescriptor> {
    DESCRIPTORS.services().filter(|service| PUBLIC_PACKAGES.contains(&service.package_name()))
}

/// A method's gRPC path, `/package.Service/Method`.
#[must_use]
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The scope of the public method at a gRPC path; none when there is no such method, or (a fault of ours) it names no scope.
#[must_use]
pub fn required_scope(path: &str) -> Option<Scope> {
    SCOPES.get(path).copied().flatten()
}

/// Whether the public method at a gRPC path streams, in either direction: it has no natural end.
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
    fn streams_are_told_from_single_calls() {
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
