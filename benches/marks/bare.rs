//! The workers without the front end: tiny_http on a public socket, as mark 6 compares it. A process of its
//! own, that ends when its standard input does.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use totpd::api::Api;
use totpd::api::http::{COMMON_HEADERS, Request, Via};
use totpd::model::{Clock, Timestamp, Window};
use totpd::service::{DataDir, KeyFile, Settings};

use crate::Result;
use crate::machine;

/// As large as the server's own workers'.
const STACK_BYTES: usize = 512 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory to make
    dir: PathBuf,
    #[arg(long)]
    workers: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let settings = Settings {
        issuer: "totpd".parse()?,
        window: Window::OneEitherSide,
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let (service, _) = DataDir::create(&args.dir, KeyFile::InDataDir, &settings, machine::now()?)?;
    let clock: Clock = Arc::new(|| machine::now().unwrap_or(Timestamp::from_micros(0)));
    let api = Arc::new(Api::new(service, clock));
    let server = tiny_http::Server::http("127.0.0.1:0")?;
    let server = Arc::new(server);
    println!("listening on http://{}", server.server_addr());
    std::io::stdout().flush()?;
    for _ in 0..args.workers {
        let (server, api) = (Arc::clone(&server), Arc::clone(&api));
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok(request) = server.recv() {
                    answer(request, &api);
                }
            })?;
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What the server's workers do, as they do it.
fn answer(mut request: tiny_http::Request, api: &Api) {
    let mut body = Vec::new();
    if request.as_reader().read_to_end(&mut body).is_err() {
        return;
    }
    let field = |name: &'static str| {
        request
            .headers()
            .iter()
            .find(|it| it.field.equiv(name))
            .map(|it| it.value.as_str())
    };
    let method = request.method().to_string();
    let reply = api.answer(&Request {
        via: Via::Http,
        content_type: None,
        origin: None,
        code: None,
        method: &method,
        target: request.url(),
        authorization: field("Authorization"),
        body: &body,
        peer: request.remote_addr().map(std::net::SocketAddr::ip),
        request_id: None,
    });
    let mut response = tiny_http::Response::from_data(reply.body)
        .with_status_code(reply.status)
        .with_chunked_threshold(usize::MAX);
    let content_type = ("Content-Type", reply.content_type);
    for (name, value) in COMMON_HEADERS.into_iter().chain([content_type]) {
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    let _left = request.respond(response);
}
