//! A gateway on a real socket, in front of roles that record what they receive.
#![allow(dead_code)] // Each test binary uses a part.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_gateway::{Backends, Gateway, Given, Options, remote_backend};
use outrider_model::{
    Error, HashedToken, OrganizationId, Principal, ProjectId, Reason, ScopeSet, Timestamp,
    principal::Actor,
};
use outrider_proto::{
    admin::endpoint_service_server::EndpointServiceServer, dispatch,
    ingest::ingest_service_server::IngestServiceServer,
};
use outrider_rpc::{Acceptor, Authenticate, Streams, channel, server::Backend};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::util::BoxCloneSyncService;

mod roles;

/// Nothing in these tests takes this long unless it never ends.
pub const LONG: Duration = Duration::from_secs(20);

/// The API key of every caller, as it is sent.
pub const BEARER: &str =
    "Bearer ork_00000000000000000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Knows every key by its number, which says what the key is. The key of [`BEARER`] may do
/// everything. So may the keys 4 to 8, each in its own project. Key 9 is never answered.
pub struct Keys;

#[tonic::async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal, Error> {
        let number = token.id.0.as_u128();
        match number {
            0 => Ok(Principal::system(OrganizationId::new(Timestamp(0), 1))),
            1 => Err(Error::new(Reason::InvalidCredentials, "the API key is not valid")),
            2 => Ok(Principal {
                scopes: ScopeSet::default(),
                ..Principal::system(OrganizationId::new(Timestamp(0), 1))
            }),
            3 => Err(Error::unavailable("nobody can tell")),
            9 => std::future::pending().await,
            _ => Ok(Principal {
                project: Some(ProjectId(token.id.0)),
                actor: Actor::ApiKey(token.id),
                ..Principal::system(OrganizationId::new(Timestamp(0), 1))
            }),
        }
    }
}

/// Returns the key with this number, as it is sent.
pub fn bearer(number: u8) -> String {
    BEARER.replace("00_A", &format!("0{number}_A"))
}

/// Adds the API key to every call.
#[derive(Clone)]
pub struct Present;

impl tonic::service::Interceptor for Present {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", BEARER.parse().unwrap());
        Ok(request)
    }
}

/// A channel that adds the API key to every call.
pub type Keyed = InterceptedService<Channel, Present>;

/// Opens a channel to a gateway that adds the API key to every call.
pub async fn keyed(address: SocketAddr) -> Keyed {
    InterceptedService::new(
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap(),
        Present,
    )
}

/// The calls that the roles received: type name, message, and the relevant metadata.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Got>>>, Arc<AtomicUsize>);

/// One call.
#[derive(Clone, Debug)]
pub struct Got {
    pub request: String,
    pub bytes: Vec<u8>,
    pub authorization: Option<String>,
    pub request_id: Option<String>,
}

impl Recorder {
    fn add<T: prost::Message>(&self, request: &tonic::Request<T>) {
        let text = |name: &str| {
            request.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        self.0.lock().unwrap().push(Got {
            request: std::any::type_name::<T>().to_owned(),
            bytes: request.get_ref().encode_to_vec(),
            authorization: text("authorization"),
            request_id: text("x-request-id"),
        });
    }

    /// Returns the number of streams open at the role.
    pub fn open_streams(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    pub fn calls(&self) -> Vec<Got> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the message of the last call.
    pub fn last<T: prost::Message + Default>(&self) -> T {
        let last = self.calls().pop().expect("a call");
        assert_eq!(last.request, std::any::type_name::<T>());
        T::decode(last.bytes.as_slice()).unwrap()
    }
}

/// A running gateway.
pub struct Running {
    pub address: SocketAddr,
    pub got: Recorder,
    shutdown: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<()>,
}

fn backend(routes: Routes) -> Backend {
    BoxCloneSyncService::new(routes.prepare())
}

pub fn backends(got: &Recorder) -> Backends {
    Backends {
        ingest: backend(Routes::new(IngestServiceServer::new(roles::Ingest(got.clone())))),
        dispatch: backend(
            Routes::new(dispatch::event_service_server::EventServiceServer::new(roles::Dispatch(
                got.clone(),
            )))
            .add_service(
                dispatch::delivery_service_server::DeliveryServiceServer::new(roles::Dispatch(
                    got.clone(),
                )),
            ),
        ),
        admin: backend(Routes::new(EndpointServiceServer::new(roles::Admin(got.clone())))),
    }
}

/// Waits until the condition is true.
pub async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("it comes to pass");
}

/// Returns the backend at this address, as a gateway sees it.
pub fn remote(address: SocketAddr) -> Backend {
    let url = format!("http://{address}");
    remote_backend(channel::channel(&url, None).unwrap(), Streams::new(&url, None).unwrap())
}

/// Serves the role over a socket, so that the gateway treats it as another process.
pub async fn apart(role: Backend) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(outrider_rpc::server::serve(
        listener,
        role,
        Acceptor::plain(),
        CancellationToken::new(),
    ));
    remote(address)
}

/// Frames one gRPC message.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    frame.into()
}

impl Running {
    /// Starts a gateway whose roles are in other processes.
    pub async fn apart(options: Options) -> Self {
        let got = Recorder::default();
        let Backends { ingest, dispatch, admin } = backends(&got);
        let backends = Backends {
            ingest: apart(ingest).await,
            dispatch: apart(dispatch).await,
            admin: apart(admin).await,
        };
        Self::before(options, backends, got).await
    }

    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let got = Recorder::default();
        let backends = backends(&got);
        Self::before(options, backends, got).await
    }

    pub async fn given(given: Given) -> Self {
        let got = Recorder::default();
        let backends = backends(&got);
        Self::with_all(Options::default(), given, backends, got).await
    }

    pub async fn before(options: Options, backends: Backends, got: Recorder) -> Self {
        Self::with_all(options, Given::default(), backends, got).await
    }

    async fn with_all(options: Options, given: Given, backends: Backends, got: Recorder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel();
        let gateway = Gateway::new(options, given, backends, Arc::new(Keys)).unwrap();
        let served = tokio::spawn(gateway.serve(listener, async move {
            let _ = told.await;
        }));
        Self { address, got, shutdown: Some(shutdown), served }
    }

    pub fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Returns whether the gateway accepts no more connections.
    pub fn served_no_more(&self) -> bool {
        std::net::TcpStream::connect(self.address).is_err()
    }

    /// Sends by HTTP/1.1, on a separate connection.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::of(self.exchange(request).await).await
    }

    /// Sends by HTTP/2, on a separate connection.
    pub async fn send_http2(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::of(self.exchange_http2(request).await).await
    }

    /// Returns the bare answer, which may be the HTTP library's own.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming> {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(LONG, sender.send_request(request)).await.unwrap().unwrap()
    }

    /// The same by HTTP/2.
    pub async fn exchange_http2(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Response<hyper::body::Incoming> {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}{}", self.address, request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        tokio::time::timeout(LONG, sender.send_request(request)).await.unwrap().unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, None)).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(request("POST", path, Some(body))).await
    }
}

/// Builds a request with a JSON body.
pub fn request(method: &str, path: &str, body: Option<&str>) -> Request<Full<Bytes>> {
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test")
        .header("authorization", BEARER);
    match body {
        Some(body) => builder
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes()))),
        None => builder.body(Full::default()),
    }
    .unwrap()
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty if the body is not UTF-8.
    pub text: String,
    pub bytes: Bytes,
}

impl Answer {
    async fn of(answer: Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap_or_default();
        Self { status: parts.status, headers: parts.headers, text, bytes }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns status, reason, and the first faulty field.
    #[track_caller]
    pub fn refused(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        assert_eq!(error["code"], self.status.as_u16(), "{self:?}");
        assert_eq!(error["request_id"], self.headers["x-request-id"].to_str().unwrap());
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text(&error["reason"]), text(&error["violations"][0]["field"]))
    }

    #[track_caller]
    pub fn is_refused(&self, status: u16, reason: &str, field: &str) {
        assert_eq!(self.refused(), (status, reason.to_owned(), field.to_owned()), "{self:?}");
    }
}
