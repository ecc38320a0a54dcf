//! A pooler that gives each transaction another session and supports prepared statements, like
//! PgBouncer from 1.21 on with `max_prepared_statements`: it renames them, and prepares them in
//! every session that uses them. No error of the database shows that sessions are shared.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

/// The idle server session that a transaction gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// The session that was used last.
    Last,
    /// The session that was idle for longest.
    Longest,
    /// The session that the client had before, if it is idle: no client ever appears in another's
    /// session.
    Own,
}

/// The pooler. It ends when dropped.
pub struct Renaming {
    url: String,
    task: JoinHandle<()>,
}

/// A message: its kind, and the bytes after its length.
type Message = (u8, Vec<u8>);

struct Session {
    number: usize,
    stream: TcpStream,
    prepared: HashSet<String>,
}

struct Pool {
    draw: Draw,
    idle: Mutex<Vec<Session>>,
    free: Semaphore,
    /// The pooler's names of statements, by their texts and types.
    names: Mutex<HashMap<Vec<u8>, String>>,
}

impl Renaming {
    /// Starts a pooler with this many sessions, in front of the server of a URL that needs no
    /// password.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn start(server: &str, sessions: usize, draw: Draw) -> Self {
        let (user, rest) = server
            .strip_prefix("postgres://")
            .and_then(|rest| rest.split_once('@'))
            .expect("a URL with a user");
        let (address, database) = rest.split_once('/').expect("a URL with a database");
        let mut idle = Vec::new();
        for number in 0..sessions {
            idle.push(
                Session::open(number, address, user, database).await.expect("the server answers"),
            );
        }
        let names = Mutex::default();
        let pool =
            Arc::new(Pool { draw, idle: Mutex::new(idle), free: Semaphore::new(sessions), names });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url =
            format!("postgres://{user}@{}/{database}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let pool = Arc::clone(&pool);
                // A client that disconnected does not affect the others.
                tokio::spawn(async move { pool.serve(client).await.is_ok() });
            }
        });
        Self { url, task }
    }

    /// The URL of the same database through the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Renaming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    async fn open(number: usize, address: &str, user: &str, database: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let mut start = (3_u32 << 16).to_be_bytes().to_vec();
        start.extend(
            format!("user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0").into_bytes(),
        );
        stream.write_all(&[&length(&start).to_be_bytes(), start.as_slice()].concat()).await?;
        while receive(&mut stream).await?.0 != b'Z' {}
        Ok(Self { number, stream, prepared: HashSet::new() })
    }

    /// Prepares a statement that another session has.
    async fn prepare(&mut self, name: &str, statement: &[u8]) -> io::Result<()> {
        let parse = [name.as_bytes(), b"\0", statement].concat();
        self.stream.write_all(&[message(b'P', &parse), message(b'S', b"")].concat()).await?;
        while receive(&mut self.stream).await?.0 != b'Z' {}
        self.prepared.insert(name.to_owned());
        Ok(())
    }
}

impl Pool {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        greet(&mut client).await?;
        let (mut held, mut own) = (None, None);
        // The pooler's names of this client's statements.
        let mut known = HashMap::new();
        loop {
            let mut batch = Vec::new();
            loop {
                let message = receive(&mut client).await?;
                let is_end = matches!(message.0, b'S' | b'Q');
                match message.0 {
                    b'X' => return Ok(()),
                    _ => batch.push(message),
                }
                if is_end {
                    break;
                }
            }
            let mut session = match held.take() {
                Some(session) => session,
                None => self.take(own).await,
            };
            own = Some(session.number);
            let state = self.pass(&mut client, &mut session, batch, &mut known).await;
            match state {
                Ok(b'I') => self.give(session),
                Ok(_) => held = Some(session),
                Err(error) => return Err(error),
            }
        }
    }

    /// Passes messages up to a Sync on to a session, and its answers back. Returns the state of the
    /// transaction.
    async fn pass(
        &self,
        client: &mut TcpStream,
        session: &mut Session,
        batch: Vec<Message>,
        known: &mut HashMap<Vec<u8>, (String, Vec<u8>)>,
    ) -> io::Result<u8> {
        let mut out = Vec::new();
        for (kind, body) in batch {
            let named = match kind {
                b'P' => Some(0),
                b'B' => Some(until_nul(&body) + 1),
                b'D' | b'C' if body.first() == Some(&b'S') => Some(1),
                _ => None,
            };
            let Some(at) = named.filter(|at| body[*at] != 0) else {
                out.extend(message(kind, &body));
                continue;
            };
            let end = at + until_nul(&body[at..]);
            let (name, rest) = (body[at..end].to_vec(), body[end + 1..].to_vec());
            if kind == b'P' {
                known.insert(name.clone(), (self.name(&rest), rest.clone()));
            }
            let (renamed, statement) =
                known.get(&name).cloned().unwrap_or_else(|| ("nowhere".to_owned(), Vec::new()));
            // If the statement is already prepared, an unnamed one is prepared instead, which gets
            // the same answer. Statements that others use are not closed.
            let renamed = match kind {
                b'P' if !session.prepared.insert(renamed.clone()) => String::new(),
                b'C' => "nowhere".to_owned(),
                b'P' => renamed,
                _ if session.prepared.contains(&renamed) || statement.is_empty() => renamed,
                _ => {
                    session.prepare(&renamed, &statement).await?;
                    renamed
                }
            };
            out.extend(message(kind, &[&body[..at], renamed.as_bytes(), b"\0", &rest].concat()));
        }
        session.stream.write_all(&out).await?;
        loop {
            let (kind, body) = receive(&mut session.stream).await?;
            client.write_all(&message(kind, &body)).await?;
            if kind == b'Z' {
                return Ok(body[0]);
            }
        }
    }

    fn name(&self, statement: &[u8]) -> String {
        let mut names = self.names.lock().expect("no panic");
        let number = names.len() + 1;
        names.entry(statement.to_vec()).or_insert_with(|| format!("PGBOUNCER_{number}")).clone()
    }

    async fn take(&self, own: Option<usize>) -> Session {
        self.free.acquire().await.expect("it is never closed").forget();
        let mut idle = self.idle.lock().expect("no panic");
        let last = idle.len() - 1;
        let at = match self.draw {
            Draw::Last => last,
            Draw::Longest => 0,
            Draw::Own => idle.iter().position(|session| Some(session.number) == own).unwrap_or(0),
        };
        idle.remove(at)
    }

    fn give(&self, session: Session) {
        self.idle.lock().expect("no panic").push(session);
        self.free.add_permits(1);
    }
}

/// The start of a client's session.
async fn greet(client: &mut TcpStream) -> io::Result<()> {
    const ASKS_FOR_TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
    loop {
        let length = client.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        if body != ASKS_FOR_TLS {
            break;
        }
        client.write_all(b"N").await?;
    }
    let parameters = [
        "server_version\x0015.0\0",
        "client_encoding\0UTF8\0",
        "DateStyle\0ISO, MDY\0",
        "TimeZone\0UTC\0",
    ];
    let mut hello = message(b'R', &0_u32.to_be_bytes());
    parameters.iter().for_each(|parameter| hello.extend(message(b'S', parameter.as_bytes())));
    hello.extend(message(b'K', &[0; 8]));
    hello.extend(message(b'Z', b"I"));
    client.write_all(&hello).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Message> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], length(body).to_be_bytes().as_slice(), body].concat()
}

/// The length includes its own four bytes.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len() + 4).expect("messages are small")
}

fn until_nul(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == 0).expect("texts end")
}
