//! gRPC services that the gateway answers itself, without an API key: health, and reflection if it
//! is enabled.

use std::collections::BTreeMap;

use outrider_rpc::{RequestErrors, methods, server::Backend};
use prost::{bytes::BufMut, encoding};
use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder, Error};
use tower::util::BoxCloneSyncService;

use crate::surface::health::Health;

/// Requests to these services name a service, a file or a symbol.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// The only method here with a client stream.
const REFLECTION: &str = ".ServerReflection/ServerReflectionInfo";

/// The services, and the descriptors of their methods.
pub(crate) struct OwnServices {
    backend: Backend,
    pub(crate) methods: Vec<MethodDescriptor>,
}

impl OwnServices {
    pub(crate) fn new(reflection: bool, serving: watch::Receiver<bool>) -> Result<Self, Error> {
        let health =
            HealthServer::new(Health::new(serving)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut routes = Routes::new(health);
        let mut described = vec![tonic_health::pb::FILE_DESCRIPTOR_SET];
        if reflection {
            let public = public_set();
            let builder = || {
                let builder = Builder::configure().register_encoded_file_descriptor_set(&public);
                builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            routes = routes
                .add_service(builder().build_v1()?.max_decoding_message_size(MAX_MESSAGE_BYTES))
                .add_service(
                    builder().build_v1alpha()?.max_decoding_message_size(MAX_MESSAGE_BYTES),
                );
            described.push(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
            described.push(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
        }
        // The libraries that implement the services provide these descriptors.
        let methods =
            described.iter().filter_map(|set| DescriptorPool::decode(*set).ok()).flat_map(|pool| {
                let methods =
                    pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
                methods.collect::<Vec<_>>()
            });
        let backend = BoxCloneSyncService::new(RequestErrors::new(routes.prepare(), |path| {
            path.ends_with(REFLECTION)
        }));
        Ok(Self { methods: methods.collect(), backend })
    }

    /// Returns the services if the package belongs to them.
    pub(crate) fn of(&self, package: &str) -> Option<Backend> {
        let is_own =
            self.methods.iter().any(|method| method.parent_service().package_name() == package);
        is_own.then(|| self.backend.clone())
    }
}

/// Encodes the files of the public services and their imports as a
/// `google.protobuf.FileDescriptorSet`. Options that are extensions (routes, scopes) are kept.
fn public_set() -> Vec<u8> {
    /// The number of `FileDescriptorSet.file`.
    const FILE: u32 = 1;
    let mut files = BTreeMap::new();
    for service in methods::public_services() {
        add(service.parent_file(), &mut files);
    }
    let mut set = Vec::new();
    for file in files.values() {
        encoding::encode_key(FILE, encoding::WireType::LengthDelimited, &mut set);
        let encoded = file.encode_to_vec();
        encoding::encode_varint(encoded.len() as u64, &mut set);
        set.put_slice(&encoded);
    }
    set
}

fn add(file: FileDescriptor, files: &mut BTreeMap<String, FileDescriptor>) {
    if !files.contains_key(file.name()) {
        for import in file.dependencies() {
            add(import, files);
        }
        files.insert(file.name().to_owned(), file);
    }
}

#[cfg(test)]
mod tests {
    use outrider_proto::DESCRIPTORS;

    use super::*;

    #[test]
    fn what_reflection_shows_is_whole_and_holds_nothing_of_the_inside() {
        let set = public_set();
        let pool = DescriptorPool::decode(set.as_slice()).expect("every import is there");
        assert_eq!(pool.services().count(), methods::public_services().count());
        assert!(pool.files().all(|file| !file.package_name().contains("internal")));
        assert!(pool.files().count() < DESCRIPTORS.files().count());
        let http = pool.get_extension_by_name("google.api.http").unwrap();
        let publish = pool
            .get_service_by_name("outrider.ingest.v1.IngestService")
            .unwrap()
            .methods()
            .next()
            .unwrap();
        assert!(publish.options().has_extension(&http));
    }

    #[test]
    fn reflection_is_served_by_switch() {
        let own = |reflection| OwnServices::new(reflection, watch::channel(true).1).unwrap();
        assert!(
            own(false).of("grpc.health.v1").is_some()
                && own(false).of("grpc.reflection.v1").is_none()
        );
        assert!(
            own(true).of("grpc.reflection.v1").is_some()
                && own(true).of("grpc.reflection.v1alpha").is_some()
        );
        assert!(own(true).of("outrider.internal.v1").is_none());
    }
}
