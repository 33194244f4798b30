//! The load over gRPC: what `load` is over REST, by the same file and with the same report.
//!
//! One call is under way on each connection, so that the two compare. It shares the cores with the server it
//! drives, so it is cheap: one thread, heads and messages made beforehand.

use std::future::poll_fn;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use data_encoding::HEXLOWER;
use h2::client::{SendRequest, handshake};
use http::{HeaderMap, Method, Request, Uri};
use prost::bytes::{BufMut, Bytes};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::http::PATIENCE;
use crate::load::{Args, Outcome, Schedule, Tally};
use crate::machine;

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A call to make.
struct Call {
    uri: Uri,
    headers: Arc<HeaderMap>,
    /// In its frame.
    message: Bytes,
}

/// What the connections share.
struct Shared {
    calls: Vec<Call>,
    progress: Mutex<Progress>,
}

struct Progress {
    schedule: Schedule,
    tally: Tally,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (token, requests) = args.prepared()?;
    let headers = Arc::new(headers(&token)?);
    let calls = requests
        .iter()
        .map(|[_, path, message]| {
            Call::new(args, path, &headers, &HEXLOWER.decode(message.as_bytes())?)
        })
        .collect::<Result<_>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(drive(args, calls))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn headers(token: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("te", "trailers".parse()?);
    headers.insert("content-type", "application/grpc".parse()?);
    if !token.is_empty() {
        headers.insert("authorization", format!("Bearer {token}").parse()?);
    }
    Ok(headers)
}

async fn drive(args: &Args, calls: Vec<Call>) -> Result<Outcome> {
    let health = Call::new(args, HEALTH, &Arc::new(headers("")?), &[])?;
    let mut lines = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        lines.push(Line::connect(&args.address, &health).await?);
    }
    let cpu = machine::cpu_time("self")?;
    let schedule = Schedule::new(args, calls.len());
    let start = schedule.start;
    let shared = Arc::new(Shared {
        calls,
        progress: Mutex::new(Progress {
            schedule,
            tally: Tally::default(),
        }),
    });
    let watched = Arc::clone(&shared);
    thread::spawn(move || {
        // The process that started this has closed its end: it has seen enough, or it has ended.
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        watched.progress().schedule.end();
    });
    let mut at_work = JoinSet::new();
    for line in lines {
        at_work.spawn(line.call_on(Arc::clone(&shared)));
    }
    let time = Duration::from_millis(args.ms).saturating_add(PATIENCE);
    timeout(time, at_work.join_all()).await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = machine::cpu_time("self")?.saturating_sub(cpu);
    let mut progress = shared.progress();
    if !progress.schedule.is_over() {
        return Err("every connection broke".into());
    }
    let tally = std::mem::take(&mut progress.tally);
    Ok(tally.into_outcome(&progress.schedule, seconds, cpu))
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    fn new(args: &Args, path: &str, headers: &Arc<HeaderMap>, message: &[u8]) -> Result<Self> {
        let mut frame = Vec::with_capacity(5 + message.len());
        // Not compressed, and so long.
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len())?);
        frame.put_slice(message);
        Ok(Self {
            uri: format!("http://{}{path}", args.address).parse()?,
            headers: Arc::clone(headers),
            message: frame.into(),
        })
    }

    fn head(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = HeaderMap::clone(&self.headers);
        request
    }
}

/// A connection.
struct Line(SendRequest<Bytes>);

impl Line {
    /// One after another, each with an answered call on it, as over REST.
    async fn connect(address: &str, health: &Call) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (send, connection) = handshake(socket).await?;
        tokio::spawn(connection);
        let mut line = Self(send);
        match line.ask(health).await? {
            200 => Ok(line),
            status => Err(format!("the health of the server: {status}").into()),
        }
    }

    /// Makes calls until there are no more, or until one finds the connection broken.
    async fn call_on(mut self, shared: Arc<Shared>) {
        loop {
            let next = shared.progress().schedule.take();
            let Some((place, since)) = next else {
                let wait = {
                    let schedule = &shared.progress().schedule;
                    (!schedule.is_over()).then(|| schedule.until_next())
                };
                match wait {
                    Some(time) => sleep(time).await,
                    None => return,
                }
                continue;
            };
            let answered = self.ask(&shared.calls[place % shared.calls.len()]).await;
            let status = answered.as_ref().copied().unwrap_or(0);
            let tally = &mut shared.progress().tally;
            tally.count(place, status, since.elapsed());
            if answered.is_err() {
                return;
            }
        }
    }

    /// Makes a call. Its status is told as REST tells it if it is good, and as gRPC does if it is not.
    async fn ask(&mut self, call: &Call) -> Result<u16> {
        poll_fn(|context| self.0.poll_ready(context)).await?;
        let (response, mut stream) = self.0.send_request(call.head(), false)?;
        stream.send_data(call.message.clone(), true)?;
        let (head, mut body) = response.await?.into_parts();
        while let Some(part) = body.data().await {
            let length = part?.len();
            body.flow_control().release_capacity(length)?;
        }
        let trailers = body.trailers().await?;
        // A refusal without a message has its trailers in the head.
        let status = trailers.as_ref().unwrap_or(&head.headers);
        let status = status
            .get("grpc-status")
            .ok_or("an answer without a status")?;
        Ok(match status.to_str()?.parse()? {
            0 => 200,
            refused => refused,
        })
    }
}
