//! Pages that the gateway answers itself to GET, without an API key: its OpenAPI document and its
//! version.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    request::Parts,
};
use outrider_model::{Error, Reason};
use serde_json::{Value, json};
use tonic::body::Body;

use crate::{
    Given,
    exchange::{answer::Refusal, compress, meter::Meter},
};

/// The pages, by path.
pub(crate) struct Pages(Vec<Page>);

/// A page, built at startup.
pub(crate) struct Page {
    pub(crate) path: &'static str,
    pub(crate) meter: Arc<Meter>,
    /// Shared by all answers.
    text: Bytes,
    compressed: Option<Bytes>,
    /// Weak, because it is the same for both encodings.
    etag: HeaderValue,
}

impl Pages {
    pub(crate) fn new(openapi: &Value, given: &Given) -> Self {
        let mut version = json!({ "version": given.version });
        if let Some(commit) = given.commit {
            version["commit"] = commit.into();
        }
        Self(vec![Page::new("/openapi.json", openapi), Page::new("/version", &version)])
    }

    pub(crate) fn find(&self, path: &str) -> Option<&Page> {
        self.0.iter().find(|page| page.path == path)
    }
}

impl Page {
    fn new(path: &'static str, value: &Value) -> Self {
        let text = value.to_string().into_bytes();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let etag = HeaderValue::from_str(&format!("W/\"{:016x}\"", hasher.finish()));
        let meter = Arc::new(Meter::new("rest", "GET", path, false));
        Self {
            path,
            meter,
            compressed: compress::gzip(&text).map(Bytes::from),
            etag: etag.unwrap_or_else(|_| HeaderValue::from_static("W/\"\"")),
            text: text.into(),
        }
    }

    pub(crate) fn answer(&self, parts: &Parts) -> Result<Response<Body>, Refusal> {
        if !matches!(parts.method.as_str(), "GET" | "HEAD") {
            let error = Error::new(Reason::MethodNotAllowed, "the path supports GET, HEAD");
            // The body was not read.
            return Err(Refusal { allow: Some("GET, HEAD".to_owned()), ..Refusal::closing(error) });
        }
        let mut answer = if self.is_known(&parts.headers) {
            let mut answer = compress::encoded(Bytes::new(), None::<Bytes>);
            answer.headers_mut().remove(CONTENT_TYPE);
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            let compressed =
                self.compressed.clone().filter(|_| compress::takes_gzip(&parts.headers));
            compress::encoded(self.text.clone(), compressed)
        };
        // The page changes only with the server's version, but then clients must see the change at
        // once.
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer.headers_mut().insert(ETAG, self.etag.clone());
        Ok(answer)
    }

    /// Returns whether the client already has this text.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = self.etag.to_str().map(opaque).unwrap_or_default();
        let given = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        given.map(opaque).any(|tag| tag == "*" || tag == own)
    }
}
