//! The front end on an open network: TLS, proxies, Unix sockets, floods, slow clients, and invalid bytes. SECURITY.md
//! 22, 31 and 34.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::iter::repeat;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use socket2::{Domain, Socket, Type};
use totpd::api::Api;
use totpd::serve::{self, Config, Handler, Limits, Listen, TlsFiles};

use crate::harness::{Client, TestServer};
use crate::wait::{self, SetOnDrop};

const HEALTH: &[u8] = b"GET /debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n";

/// Writes a self-signed certificate and its key into two files, and returns the certificate too.
fn certificate(dir: &Path, name: &str) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        group_may_read: false,
    };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
    (files, made.cert.der().clone())
}

type TlsClient = StreamOwned<ClientConnection, TcpStream>;

fn tls(
    address: &str,
    name: &str,
    root: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = name.to_owned().try_into().unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        socket,
    )
}

fn healthy(stream: &mut (impl Read + Write)) -> std::io::Result<bool> {
    stream.write_all(HEALTH)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(b"ok") {
        match stream.read(&mut buffer)? {
            0 => return Ok(false),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// A page tells the browser to use only TLS if it was itself served over TLS. SECURITY.md 41
#[cfg(feature = "web")]
#[test]
fn a_page_over_tls_asks_for_tls_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let (files, root) = certificate(dir.path(), "pages.test");
    let server = TestServer::builder()
        .config(|it| it.tls = Some(files))
        .start();
    let version = &rustls::version::TLS13;
    let mut client = tls(&server.address(), "pages.test", &root, version);
    let request = b"HEAD /ui/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    client.write_all(request).unwrap();
    let mut head = String::new();
    client.read_to_string(&mut head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let field = "\r\nStrict-Transport-Security: max-age=31536000\r\n";
    assert!(head.contains(field), "{head}");
}

#[test]
fn tls_12_and_13_are_spoken_and_a_new_certificate_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (files, old) = certificate(dir.path(), "old.test");
    let server = TestServer::builder()
        .config(|it| it.tls = Some(files))
        .start();
    assert!(
        server.running().addresses()[0]
            .to_string()
            .starts_with("https://127.0.0.1:")
    );
    let mut clients = Vec::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = tls(&server.address(), "old.test", &old, version);
        assert!(healthy(&mut client).unwrap() && healthy(&mut client).unwrap());
        assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        clients.push(client);
    }
    let mut plain = Client::connect(&server.address());
    plain.send(HEALTH);
    let mut nothing = Vec::new();
    assert!(plain.read_rest(&mut nothing).is_err() || !nothing.starts_with(b"HTTP"));

    let (_, new) = certificate(dir.path(), "new.test");
    assert!(server.running().reload_tls().unwrap());
    let without_tls = TestServer::start();
    assert!(!without_tls.running().reload_tls().unwrap());
    assert!(
        healthy(&mut tls(
            &server.address(),
            "new.test",
            &new,
            &rustls::version::TLS13
        ))
        .unwrap()
    );
    let old_for_new = tls(&server.address(), "old.test", &old, &rustls::version::TLS13);
    assert!(healthy(&mut { old_for_new }).is_err());
    for client in &mut clients {
        assert!(healthy(client).unwrap(), "those who were there go on");
    }
    fs::write(dir.path().join("key.pem"), "no key").unwrap();
    let error = server.running().reload_tls().unwrap_err().to_string();
    assert!(error.contains("stays in force"), "{error}");
    assert!(
        healthy(&mut tls(
            &server.address(),
            "new.test",
            &new,
            &rustls::version::TLS12
        ))
        .unwrap()
    );
    fs::set_permissions(dir.path().join("key.pem"), Permissions::from_mode(0o644)).unwrap();
    let error = server.running().reload_tls().unwrap_err().to_string();
    assert!(error.contains("others can reach it"), "{error}");
}

#[test]
fn silent_and_broken_handshakes_delay_nobody_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let (files, root) = certificate(dir.path(), "t.test");
    let server = TestServer::builder()
        .config(|it| {
            it.tls = Some(files);
            it.limits.request_time = Duration::from_millis(500);
        })
        .start();
    let mut silent: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let begun = Instant::now();
    assert!(
        healthy(&mut tls(
            &server.address(),
            "t.test",
            &root,
            &rustls::version::TLS13
        ))
        .unwrap()
    );
    assert!(
        begun.elapsed() < Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    for stream in &mut silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "sent away");
    }
    // Sending a TLS record slowly does not get around the limit.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&[0x16, 3, 1, 1, 0]).unwrap();
    let took = wait::drip(&mut stream, repeat([1]), Duration::from_millis(50));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_unix_socket_is_private_replaces_a_stale_one_and_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.sock");
    drop(UnixListener::bind(&path).unwrap());
    let listen = |path: &Path| {
        format!("unix:{}", path.display())
            .parse::<Listen>()
            .unwrap()
    };
    let mut server = TestServer::builder()
        .config(|it| it.listen.push(listen(&path)))
        .start();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(healthy(&mut UnixStream::connect(&path).unwrap()).unwrap());
    assert!(healthy(&mut TcpStream::connect(server.address()).unwrap()).unwrap());
    let second = UnixListener::bind(&path).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    assert!(server.stop(Duration::from_secs(5)));
    assert!(!path.exists());

    // If the socket's path is removed, no client can connect, and stopping still takes no time.
    let mut server = TestServer::builder()
        .config(|it| it.listen.push(listen(&path)))
        .start();
    fs::remove_file(&path).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(server.stop(Duration::from_secs(5))));
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(true));
}

/// A socket that systemd passes may be nonblocking, or not listening at all.
#[test]
fn a_socket_that_is_handed_over_serves_as_it_is_or_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = TestServer::builder()
        .config(|it| {
            it.inherited.push(listener.into());
        })
        .start();
    let mut client = TcpStream::connect(address).unwrap();
    for _ in 0..2 {
        assert!(healthy(&mut client).unwrap());
        // Closing idle listeners does not affect clients: the server sends nothing to this idle one.
        client
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let told = client.peek(&mut [0]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::WouldBlock);
    }
    let api = Api::new(server.service.clone(), server.clock());
    drop(server);

    let (connected, _other) = UnixStream::pair().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: Vec::new(),
        inherited: vec![OwnedFd::from(connected)],
        public_url: None,
        metrics_listen: None,
        tls: None,
        trusted_proxies: Vec::new(),
        unix_mode: 0o600,
        private_dir: dir.path().to_owned(),
        changes_at_once: 2,
        commit_batch: 1,
        limits: Limits::default(),
        insecure_plaintext: false,
        on_fatal_error: Box::new(|why| panic!("{why}")),
    };
    let handler = Handler::of(api);
    let Err(error) = serve::start(config, &handler) else {
        panic!("a socket that cannot listen was taken");
    };
    assert!(error.to_string().contains("listens"), "{error}");
}

/// A trusted proxy names the peer of a request. Headers of any other client are ignored.
#[test]
fn the_peer_is_the_one_that_a_trusted_proxy_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.sock");
    let listen = || format!("unix:{}", path.display()).parse().unwrap();
    for (mode, trusted, over_unix, expected) in [
        (0o600, "", true, Some("203.0.113.7")),
        (0o666, "", true, None),
        (0o600, "127.0.0.0/8", false, Some("203.0.113.7")),
        (0o600, "10.0.0.0/8", false, Some("127.0.0.1")),
    ] {
        let server = TestServer::builder()
            .config(|it| {
                it.listen.push(listen());
                it.unix_mode = mode;
                it.trusted_proxies = trusted.parse().into_iter().collect();
            })
            .start();
        let request = format!(
            "POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 6.6.6.6\r\n\
             X-Forwarded-For: 203.0.113.7\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\
             Connection: close\r\n\r\n{{}}",
            server.admin
        );
        let mut answer = String::new();
        if over_unix {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        } else {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let of = |condition: &str| {
            let sql =
                format!("SELECT count(*) FROM event WHERE kind = 'user.created' AND {condition}");
            server.count(&sql)
        };
        let condition = expected.map_or("peer IS NULL".to_owned(), |it| format!("peer = '{it}'"));
        assert_eq!(of(&condition), 1, "{mode:o} {trusted} {over_unix}");
    }
}

/// A thousand silent clients and some slow ones lock no other client out.
#[test]
fn silent_and_dripping_peers_shut_out_no_honest_one() {
    let limits = Limits {
        connections: 200,
        connections_per_peer: 120,
        request_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    let connect = |number: usize| TcpStream::connect(format!("127.0.0.{}:{port}", 1 + number % 5));
    let mut idle: Vec<TcpStream> = (0..400).filter_map(|it| connect(it).ok()).collect();
    let mut dripping: Vec<TcpStream> = (0..100).filter_map(|it| connect(it).ok()).collect();
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        for stream in &mut dripping {
            let _cut = stream.write_all(if round == 0 { b"GET /" } else { b"x" });
        }
        let asked = Instant::now();
        let mut client = Client::connect(&server.address());
        client
            .ask("GET", "/debug/healthz", "", b"")
            .expect_status(200);
        slowest = slowest.max(asked.elapsed());
        // The pace at which they send.
        thread::sleep(Duration::from_millis(20));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    for stream in &mut dripping {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "),
            "told, or cut"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "every drip has ended by then"
    );
    idle.clear();
}

/// A client that keeps its connection open after the last answer gives way to an honest client. So does one that
/// keeps sending requests and reads no answer.
#[test]
fn those_who_linger_or_take_nothing_shut_out_no_honest_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.sock");
    let connections = 6;
    let server = TestServer::builder()
        .config(|it| {
            it.limits.connections = connections;
            it.listen
                .push(format!("unix:{}", path.display()).parse().unwrap());
        })
        .start();
    let ask = || {
        let mut client = Client::connect(&server.address());
        client
            .ask("GET", "/debug/healthz", "Connection: close\r\n", b"")
            .expect_status(200);
        client
    };
    // Each connection is drained for a second after its answer, so all of them are soon in use.
    let lingering: Vec<Client> = (0..connections * 3).map(|_| ask()).collect();
    drop(lingering);

    let deaf = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // Write until nothing more is accepted: first the answers fill all buffers, and then the requests do.
        while stream.write_all(HEALTH).is_ok() {}
        stream
    };
    let _deaf: Vec<UnixStream> = thread::scope(|scope| {
        let filling: Vec<_> = (0..connections).map(|_| scope.spawn(deaf)).collect();
        filling.into_iter().map(|it| it.join().unwrap()).collect()
    });
    // Each connection gives way once its client has read nothing for a second, and not earlier.
    let full = Instant::now();
    wait::until("the last one has taken nothing for a second", || {
        full.elapsed() > Duration::from_millis(1500)
    });
    wait::until("there is room", || {
        let mut client = Client::connect(&server.address());
        let healthy = client.try_ask("GET", "/debug/healthz", "", b"");
        healthy.is_some_and(|it| it.status == 200)
    });
    for _ in 0..connections {
        let begun = Instant::now();
        drop(ask());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// SIGTERM: every request in progress is answered.
#[test]
fn stopping_answers_what_was_begun_and_sends_the_silent_away() {
    let mut server = TestServer::start();
    let mut silent = Client::connect(&server.address());
    silent
        .ask("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    let mut begun = Client::connect(&server.address());
    let half = format!(
        "POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n\
         Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        server.admin
    );
    begun.send(half.as_bytes());
    // The server has begun to read the request when it sends this answer.
    assert_eq!(begun.answer(false, &half).status, 100);
    let address = server.address();
    let stopping = thread::spawn(move || {
        let answered = server.stop(Duration::from_secs(5));
        (server, answered)
    });
    assert!(silent.is_closed());
    begun.send(b"{}");
    let answer = begun.answer(false, "begun before").expect_status(201);
    assert_eq!(answer.header("connection"), Some("close"));
    drop(begun);
    let (_server, answered) = stopping.join().unwrap();
    assert!(answered);
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
}

/// Random numbers that are the same in every run (an xorshift generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn ten_thousand_mutated_requests_are_refused_or_closed_and_none_succeeds() {
    let limits = Limits {
        request_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    // The seeds contain no token, so no mutation of them may ever succeed.
    let seeds: [&[u8]; 4] = [
        b"POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /resources/v3alpha/users/1/totp/2 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /resources/v3alpha/users/a%20b?instance.id=1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        b"PUT /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n\"123\"",
    ];
    let odd: [&[u8]; 10] = [
        b"\r\n",
        b"\n",
        b"\0",
        b" ",
        b":",
        b"\xff",
        b"Content-Length: 9\r\n",
        b"chunked",
        b"%",
        b"HTTP/1.1",
    ];
    let address = server.address();
    let (threads, each) = (16, 625);
    let answered: usize = thread::scope(|scope| {
        let (address, seeds, odd) = (&address, &seeds, &odd);
        let clients: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1));
                    let mut answered = 0;
                    for _ in 0..each {
                        let mut bytes = seeds[dice.below(seeds.len())].to_vec();
                        for _ in 0..=dice.below(4) {
                            bytes.extend(bytes.is_empty().then_some(b' '));
                            let at = dice.below(bytes.len());
                            match dice.below(4) {
                                0 => bytes[at] = dice.below(256) as u8,
                                1 => drop(bytes.remove(at)),
                                2 => bytes.truncate(at.max(1)),
                                _ => {
                                    let piece = odd[dice.below(odd.len())];
                                    bytes.splice(at..at, piece.iter().copied());
                                }
                            }
                        }
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream
                            .set_read_timeout(Some(Duration::from_secs(20)))
                            .unwrap();
                        let _refused = stream.write_all(&bytes);
                        let _refused = stream.shutdown(Shutdown::Write);
                        let mut answer = Vec::new();
                        let _reset = stream.read_to_end(&mut answer);
                        let text = String::from_utf8_lossy(&answer);
                        for line in text.lines().filter(|it| it.starts_with("HTTP/1.1 ")) {
                            let refused = [" 4", " 5", " 100"]
                                .iter()
                                .any(|it| line[8..].starts_with(it));
                            assert!(refused, "{line} to {:?}", String::from_utf8_lossy(&bytes));
                        }
                        answered += usize::from(!answer.is_empty());
                    }
                    answered
                })
            })
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert!(answered > threads * each / 2, "{answered} were answered");
    server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    assert_eq!(server.count("SELECT count(*) FROM user"), 0);
}

/// A burst of clients that stay connected does not starve itself or clients that are already working.
#[test]
fn five_hundred_clients_at_once_are_all_answered_while_others_work() {
    let server = TestServer::start();
    let port = server
        .address()
        .rsplit_once(':')
        .unwrap()
        .1
        .parse::<u16>()
        .unwrap();
    let done = AtomicBool::new(false);
    let connect = |number: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 1, number as u8], 0)).into())
            .unwrap();
        socket
            .connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())
            .unwrap();
        TcpStream::from(socket)
    };
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for _ in 0..64 {
            scope.spawn(|| {
                let mut client = Client::connect(&server.address());
                while !done.load(Ordering::SeqCst) {
                    client
                        .ask("GET", "/debug/healthz", "", b"")
                        .expect_status(200);
                }
            });
        }
        let begun = Instant::now();
        let mut clients: Vec<TcpStream> = (0..500_u16).map(|it| connect(it % 5 + 1)).collect();
        for client in &mut clients {
            client.write_all(HEALTH).unwrap();
        }
        for client in &mut clients {
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let mut answer = [0; 1024];
            let read = client.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
        }
        let took = begun.elapsed();
        // An unoptimised build gets more time. The limit that counts is that of a release build.
        let allowed_s = if cfg!(debug_assertions) { 5 } else { 1 };
        assert!(took < Duration::from_secs(allowed_s), "{took:?}");
    });
}
