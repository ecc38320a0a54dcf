//! Everything that the port serves, built at startup.

use std::sync::Arc;

use outrider_rpc::server::Backend;
use tower_http::cors::CorsLayer;

use super::{own::OwnServices, page::Pages};
use crate::{
    exchange::Shared,
    route::{Methods, Routes},
};

/// Everything that the port serves.
pub(crate) struct Surfaces {
    pub(crate) shared: Arc<Shared>,
    pub(crate) own: OwnServices,
    pub(crate) cors: Option<CorsLayer>,
    pub(crate) routes: Routes,
    pub(crate) methods: Methods,
    pub(crate) pages: Pages,
}

impl Surfaces {
    /// Returns the role, or the gateway's own services, that serves a proto package.
    pub(crate) fn backend(&self, package: &str) -> Option<Backend> {
        self.shared.backends.of(package).or_else(|| self.own.of(package))
    }
}
