//! A REST client.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use super::connect::{Connector, tls};

/// The time within which every answer must be complete.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls one server with JSON over HTTP/1.1 and one API key.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    token: Option<String>,
    headers: HeaderMap,
    client: Client<Connector, Full<Bytes>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// Parses the body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} with no JSON: {:?}", self.status, self.body))
    }

    /// Parses the body as JSON. Fails unless the status is 2xx.
    pub fn success(self) -> Result<Value> {
        ensure!(
            self.status.is_success(),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// Returns the stable reason of an error, or an empty text.
    #[must_use]
    pub fn reason(&self) -> String {
        self.json()
            .ok()
            .and_then(|value| Some(value["error"]["reason"].as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// Returns the fields that an error names.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        let value = self.json().unwrap_or_default();
        let violations = value["error"]["violations"].as_array().cloned().unwrap_or_default();
        violations
            .iter()
            .filter_map(|violation| Some(violation["field"].as_str()?.to_owned()))
            .collect()
    }
}

impl Rest {
    /// Creates a client for a base URL such as `http://127.0.0.1:8080`.
    #[must_use]
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self::over(base, token, Connector(None))
    }

    /// Creates a client for a base URL such as `https://127.0.0.1:8080`, whose server has a
    /// certificate of this authority.
    pub fn trusting(base: &str, token: Option<&str>, authority: &Path) -> Result<Self> {
        Ok(Self::over(base, token, Connector(Some(tls(authority, None)?))))
    }

    fn over(base: &str, token: Option<&str>, connector: Connector) -> Self {
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1_024).build(connector);
        Self {
            base: base.to_owned(),
            token: token.map(str::to_owned),
            headers: HeaderMap::new(),
            client,
        }
    }

    /// Returns a client with the same connections and another API key, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Returns a client with the same connections and one more header in each request.
    pub fn with_header(&self, name: &'static str, value: &str) -> Result<Self> {
        let mut same = self.clone();
        same.headers.insert(name, value.parse()?);
        Ok(same)
    }

    /// Sends bytes as they are.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut request = request.body(Full::new(body.into()))?;
        request.headers_mut().extend(self.headers.clone());
        let exchange = async {
            let (parts, body) = self.client.request(request).await?.into_parts();
            anyhow::Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .with_context(|| format!("no answer within {DEADLINE:?}: {path}"))?
    }

    /// Sends GET. Fails unless the status is 2xx.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, "").await?.success().with_context(|| format!("GET {path}"))
    }

    /// Sends POST. Fails unless the status is 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, body.to_string())
            .await?
            .success()
            .with_context(|| format!("POST {path} {body}"))
    }

    /// Sends PATCH. Fails unless the status is 2xx.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, body.to_string())
            .await?
            .success()
            .with_context(|| format!("PATCH {path} {body}"))
    }

    /// Sends DELETE. Fails unless the status is 2xx.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, "")
            .await?
            .success()
            .with_context(|| format!("DELETE {path}"))
    }
}
