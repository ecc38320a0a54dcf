//! The operations listener: `/healthz` (the process runs), `/readyz` (whether it can do its work,
//! and what is missing) and `/metrics` (Prometheus text format).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use outrider_queue::Queue;
use outrider_rpc::RemoteKeys;
use outrider_store::Store;
use outrider_telemetry::metrics;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bounded;

/// The parts that readiness depends on.
#[derive(Clone)]
pub struct Health {
    pub store: Option<Store>,
    pub queue: Option<Arc<dyn Queue>>,
    /// Set for a gateway in a process of its own.
    pub keys: Option<Arc<RemoteKeys>>,
    /// Set once every listener is open, and cleared when the shutdown begins.
    pub serving: Arc<AtomicBool>,
}

impl Health {
    /// Returns what is missing; nothing when the process is ready.
    async fn waiting_for(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.serving.load(Ordering::Relaxed) {
            missing.push("the listeners of this process".to_owned());
        }
        if let Some(store) = &self.store
            && let Err(error) = store.ready().await
        {
            missing.push(format!("the database: {error}"));
        }
        if let Some(queue) = &self.queue
            && let Err(error) = queue.ready().await
        {
            missing.push(format!("the queue: {error}"));
        }
        if let Some(keys) = &self.keys
            && let Err(error) = keys.ready().await
        {
            missing.push(format!("a role that checks API keys: {error}"));
        }
        missing
    }
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, health: Health, shutdown: CancellationToken) {
    let router = Router::new()
        .route(
            "/healthz",
            get(|| async { Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})) }),
        )
        .route("/readyz", get(readyz))
        .route(
            "/metrics",
            get(|| async { ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render()) }),
        )
        .with_state(health);
    bounded::serve(listener, router, shutdown).await;
}

async fn readyz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    let waiting_for = health.waiting_for().await;
    let status =
        if waiting_for.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": waiting_for.is_empty(), "waiting_for": waiting_for})))
}
