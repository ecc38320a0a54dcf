//! Opens a channel with the API key, from options, variables and profiles.

use std::time::Duration;

use clap::Args;
use outrider_rpc::cause;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{Failure, output::Output, profile};

/// The variable of the project.
pub const PROJECT: &str = "OUTRIDER_PROJECT";
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take: a little longer than the gateway's own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// Maximum size of a response: unlimited, because the gateway has a limit.
pub const WHOLE: usize = usize::MAX;

/// Time between two keep-alive pings.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The server, the key and the project. Options override variables, and variables override the
/// profile.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ClientOptions {
    #[command(flatten)]
    pub server: ServerOptions,
    /// The project.
    #[arg(long, global = true, env = PROJECT, value_name = "PROJECT")]
    pub project: Option<String>,
}

/// The options of commands without a project.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ServerOptions {
    /// The gateway, as http://HOST:PORT or https://HOST [default: http://127.0.0.1:8080]
    #[arg(long, global = true, env = "OUTRIDER_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The API key. Prefer the variable or a profile, because other users of this machine can see
    /// command lines.
    #[arg(
        long,
        global = true,
        env = "OUTRIDER_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub key: Option<String>,
    /// The profile in ~/.config/outrider/config.toml [default: default]
    #[arg(long, global = true, env = "OUTRIDER_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// Prints the JSON that REST would return.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A channel that adds the credentials to every call.
pub type Service = InterceptedService<Channel, Credentials>;

/// A connection to a gateway.
pub struct Session {
    service: Service,
    project: Option<String>,
    pub output: Output,
}

impl Session {
    /// Connects. Fails with [`Failure::Usage`] without a key, and with [`Failure::Unreachable`] if
    /// the server does not answer.
    pub async fn open(options: &ClientOptions) -> Result<Self, Failure> {
        Self::within(&options.server, options.project.clone()).await
    }

    /// Connects for a command with its own option for the project.
    pub async fn within(options: &ServerOptions, project: Option<String>) -> Result<Self, Failure> {
        let profile = profile::load(options.profile.as_deref())?;
        let key = options.key.clone().or(profile.key);
        let key = key.ok_or_else(|| usage("an API key", "--key, OUTRIDER_API_KEY or a profile"))?;
        let server =
            options.server.clone().or(profile.server).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let credentials = Credentials::new(&key)?;
        let channel = connect(&server).await?;
        Ok(Self {
            service: InterceptedService::new(channel, credentials),
            project: project.or(profile.project),
            output: Output::new(options.json),
        })
    }

    /// Returns the service for the generated clients.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// Returns the project, which most calls need.
    pub fn project(&self) -> Result<String, Failure> {
        self.project
            .clone()
            .ok_or_else(|| usage("a project", "--project, OUTRIDER_PROJECT or a profile"))
    }
}

fn usage(what: &str, from: &str) -> Failure {
    Failure::Usage(format!("{what} is needed: give it by {from}"))
}

async fn connect(server: &str) -> Result<Channel, Failure> {
    let uri = outrider_rpc::channel::parse(server).map_err(|_| {
        Failure::Usage(format!(
            "--server {server}: must be http://HOST:PORT or https://HOST:PORT, \
            with nothing after it"
        ))
    })?;
    let mut endpoint = Endpoint::from(uri);
    if endpoint.uri().scheme_str() == Some("https") {
        let secured = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots());
        endpoint = secured.map_err(|error| {
            Failure::Usage(format!("--server {server}: {}", cause::words(&error)))
        })?;
    }
    let endpoint =
        endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true);
    // While a stream is open, a server that vanished silently is noticed.
    let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    endpoint
        .connect()
        .await
        .map_err(|error| Failure::Unreachable(format!("{server}: {}", cause::words(&error))))
}

/// Adds the key to each call.
#[derive(Clone)]
pub struct Credentials(MetadataValue<Ascii>);

impl Credentials {
    fn new(key: &str) -> Result<Self, Failure> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", key.trim())
            .parse()
            .map_err(|_| Failure::Usage("the API key has impossible characters".into()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
