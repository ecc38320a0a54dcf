//! The inner steps that `cargo bench` measures. Built only with the feature `bench`.

use bytes::Bytes;
use http::{Request, request::Parts};
use outrider_proto::DESCRIPTORS;
use outrider_rpc::methods;
use prost::Message as _;
use prost_reflect::DynamicMessage;

use crate::{exchange::cost::Cost, json::write, route::Routes, surface::rest};

/// A REST publish, from the text of its body to the bytes of the message, and its answer in the
/// other direction.
pub struct Publish {
    routes: Routes,
    parts: Parts,
}

impl Publish {
    /// Publishes to a project that does not exist.
    ///
    /// # Panics
    /// If the protos give no route for publishing.
    #[must_use]
    pub fn new() -> Self {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let routes = Routes::of(&DESCRIPTORS, &methods).expect("the protos give routes");
        let request = Request::post("/v1/projects/prj_01h455vb4pex5vsknk084sn02q/events")
            .header("content-type", "application/json");
        Self { routes, parts: request.body(()).expect("a request").into_parts().0 }
    }

    /// Finds the route, reads the body and encodes the message.
    ///
    /// # Panics
    /// If the body is not the body of a publish.
    #[must_use]
    pub fn request(&self, body: &Bytes) -> Vec<u8> {
        let Ok(found) = self.routes.find("POST", self.parts.uri.path()) else {
            panic!("publishing has no route")
        };
        let cost = Cost::alone(body.len(), usize::MAX);
        let given = rest::decode_body(&found.route.body, &found.route.input, body, &cost)
            .expect("a body of a publish");
        rest::message(&found, &self.parts, given).expect("a publish").encode_to_vec()
    }

    /// Decodes the answer and writes it as JSON.
    ///
    /// # Panics
    /// If the bytes are not an answer to a publish.
    #[must_use]
    pub fn answer(&self, answer: &[u8]) -> Vec<u8> {
        let Ok(found) = self.routes.find("POST", self.parts.uri.path()) else {
            panic!("publishing has no route")
        };
        let answer = DynamicMessage::decode(found.route.output.clone(), answer)
            .expect("an answer to a publish");
        write::message(&answer).expect("it has a JSON form")
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self::new()
    }
}
