//! The methods that gRPC can call, by path.

use std::{collections::HashMap, sync::Arc};

use outrider_model::{Error, Reason, Scope};
use outrider_rpc::methods::{self, WithoutScope};
use prost_reflect::MethodDescriptor;

use crate::exchange::meter::Meter;

/// The public methods, and the gateway's own methods, by path.
pub(crate) struct Methods(HashMap<String, Method>);

/// A public method.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) path: String,
    pub(crate) package: String,
    /// The scope that the caller's key must have. `None` for the gateway's own methods.
    pub(crate) scope: Option<Scope>,
    pub(crate) client_streams: bool,
    pub(crate) server_streams: bool,
    meters: [Arc<Meter>; 2],
}

impl Methods {
    /// Fails if a method has no scope and is not known to need no key.
    pub(crate) fn of<'m>(
        methods: impl IntoIterator<Item = &'m MethodDescriptor>,
    ) -> Result<Self, WithoutScope> {
        let entry = |method: &MethodDescriptor| {
            let path = methods::path(method);
            let package = method.parent_service().package_name().to_owned();
            let method = Method {
                path: path.clone(),
                package,
                scope: methods::scope_or_open(&path)?,
                client_streams: method.is_client_streaming(),
                server_streams: method.is_server_streaming(),
                meters: ["grpc", "grpc-web"].map(|protocol| {
                    let streams = method.is_client_streaming() || method.is_server_streaming();
                    Arc::new(Meter::new(protocol, "POST", &path, streams))
                }),
            };
            Ok((path, method))
        };
        methods.into_iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn find(&self, path: &str) -> Result<&Method, Error> {
        self.0
            .get(path)
            .ok_or_else(|| Error::new(Reason::UnknownMethod, "no public method of that name"))
    }
}

impl Method {
    /// Returns the counters of the method.
    pub(crate) fn meter(&self, from_web: bool) -> &Arc<Meter> {
        &self.meters[usize::from(from_web)]
    }

    /// Returns whether a call has no natural end, and so no deadline except the client's.
    pub(crate) fn streams(&self) -> bool {
        self.client_streams || self.server_streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_without_a_scope_is_not_served() {
        let keys = outrider_proto::DESCRIPTORS
            .get_service_by_name("outrider.internal.v1.KeyService")
            .unwrap();
        let method = keys.methods().next().unwrap();
        let error = Methods::of([&method]).err().unwrap();
        assert_eq!(error, WithoutScope("/outrider.internal.v1.KeyService/ResolveKey".to_owned()));
    }
}
