//! The document as a whole.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use outrider_rpc::methods;
use prost_reflect::MethodDescriptor;
use serde_json::{Map, Value, json};

use super::{
    comments::Commented,
    errors,
    operation::{self, SECURITY},
    schema::Schemas,
};
use crate::{exchange::deadline::LEAST_SECONDS, route::Routes};

const ABOUT: &str = "Events in, webhooks out. This document is generated from the protos, which \
    also define the same API over gRPC and gRPC-web.\n\nNames are accepted in snake_case or \
    camelCase and written in snake_case. Unknown fields and query parameters are refused. 64-bit \
    numbers are strings, enums are names, and times are in RFC 3339 format.";

/// Builds the document of all routes.
pub(crate) fn document(routes: &Routes, methods: &[MethodDescriptor], version: &str) -> Value {
    let mut schemas = Schemas::default();
    errors::add_schemas(&mut schemas);
    let paths = paths(&mut schemas, routes, methods);
    let tag = |service: prost_reflect::ServiceDescriptor| {
        json!({ "name": service.name(),
        "description": service.comment() })
    };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrider",
            "version": version,
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The server that returned this document." }],
        "tags": methods::public_services().map(tag).collect::<Vec<_>>(),
        "security": [{ SECURITY: [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                SECURITY: { "type": "http", "scheme": "bearer",
                    "description": "An API key: `Authorization: Bearer ork_…`." },
            },
            "parameters": shared_parameters(),
            "headers": {
                "X-Request-Id": { "description": "The id of the request in the server's logs.",
                    "schema": { "type": "string" } },
            },
            "responses": errors::responses(),
            "schemas": schemas.into_map(),
        },
    })
}

fn paths(
    schemas: &mut Schemas,
    routes: &Routes,
    methods: &[MethodDescriptor],
) -> Map<String, Value> {
    let methods =
        methods.iter().map(|method| (methods::path(method), method)).collect::<HashMap<_, _>>();
    let mut count = HashMap::<&str, usize>::new();
    let mut paths = Map::new();
    for route in routes.all() {
        let Some(method) = methods.get(&route.grpc_path) else { continue };
        let number = count.entry(&route.grpc_path).or_default();
        *number += 1;
        let operation = operation::operation(schemas, method, route, *number);
        let path = paths.entry(operation::path(&route.template)).or_insert_with(|| json!({}));
        path[route.http_method.to_ascii_lowercase()] = operation;
    }
    paths
}

fn shared_parameters() -> Value {
    json!({
        "RequestId": {
            "name": "X-Request-Id", "in": "header", "required": false,
            "description": "An id that the caller chooses for the server's logs: 1 to 128 bytes of \
                visible ASCII. The answer has the same id. If there is none, or it is not valid, \
                the server generates one.",
            "schema": { "type": "string" },
        },
        "RequestTimeout": {
            "name": "Request-Timeout", "in": "header", "required": false,
            "description": "The maximum time for the answer, in seconds. Fractions are accepted. \
                The server's own limit still applies.",
            "schema": { "type": "number", "minimum": LEAST_SECONDS },
        },
    })
}
