//! The wire: types and services generated from the `.proto` files beside this crate, and the
//! descriptor set from which REST routes, scopes and documentation are derived.
//!
//! It must never hold logic: what a message means is said in its comments and done in the roles.
#![allow(clippy::all, clippy::pedantic, rustdoc::all)]

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// Messages and services, in modules named like their packages.
pub mod outrider {
    /// Options on methods and fields.
    pub mod options {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("outrider.options.v1");
        }
    }
    /// Publishing.
    pub mod ingest {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("outrider.ingest.v1");
        }
    }
    /// Events, deliveries, attempts.
    pub mod dispatch {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("outrider.dispatch.v1");
        }
    }
    /// Configuration.
    pub mod admin {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("outrider.admin.v1");
        }
    }
    /// Between roles.
    pub mod internal {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("outrider.internal.v1");
        }
    }
}

/// The part of google's common protos that is used.
pub mod google {
    /// Errors as messages.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
    /// HTTP rules; only in the descriptors.
    pub mod api {
        tonic::include_proto!("google.api");
    }
}

pub use outrider::{
    admin::v1 as admin, dispatch::v1 as dispatch, ingest::v1 as ingest, internal::v1 as internal,
    options::v1 as options,
};

/// The encoded `google.protobuf.FileDescriptorSet` with all imports, options and comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same, ready for reflection. Decoded once.
pub static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the descriptor set is written by our own build")
});
