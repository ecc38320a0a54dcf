//! A client of the public API: REST with hyper, gRPC with the generated client.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use outrider_proto::ingest::{
    NewEvent, PublishEventRequest, ingest_service_client::IngestServiceClient,
};
use outrider_rpc::cause;
use serde_json::Value;

use crate::client::Failure;

/// Calls a gateway with a key.
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    project: String,
    token: String,
}

impl Client {
    pub fn new(address: SocketAddr, project: String, token: String) -> Self {
        Self {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            address,
            project,
            token,
        }
    }

    /// POSTs JSON to a collection of the project.
    pub async fn post(&self, collection: &str, body: &Value) -> Result<Value> {
        let request = Request::post(format!(
            "http://{}/v1/projects/{}/{collection}",
            self.address, self.project
        ))
        .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
        let response = self.http.request(request).await.map_err(|error| silent(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| silent(&error))?.to_bytes();
        let answer: Value =
            serde_json::from_slice(&body).context("the gateway's answer is not JSON")?;
        if !status.is_success() {
            bail!("POST {collection} was answered {status}: {answer}");
        }
        Ok(answer)
    }

    /// Publishes by gRPC. Returns the id of the event.
    pub async fn publish_grpc(&self, event_type: &str, data: Value) -> Result<String> {
        let mut client = IngestServiceClient::connect(format!("http://{}", self.address))
            .await
            .map_err(|error| silent(&error))?;
        let event = NewEvent {
            event_type: event_type.to_owned(),
            payload: data.to_string().into(),
            ..NewEvent::default()
        };
        let mut request = tonic::Request::new(PublishEventRequest {
            project_id: self.project.clone(),
            event: Some(event),
        });
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        let answer = client
            .publish_event(request)
            .await
            .map_err(|status| anyhow!(Failure::from(status).to_string()))?;
        Ok(answer.into_inner().event_id)
    }
}

fn silent(error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    anyhow!("the gateway does not answer: {}", cause::words(error))
}
