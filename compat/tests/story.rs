//! ZITADEL's published client, unchanged, against totpd: the whole story, in plaintext and under TLS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use admin::admin_service_client::AdminServiceClient;
use prost::Message;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};
use totpd::api::Api;
use totpd::model::{Period, Step, Timestamp, Window};
use totpd::serve::{self, Config, Handler, Limits, Listen, Running, TlsFiles};
use totpd::service::{COMMIT_BATCH, Context, DataDir, KeyFile, NewToken, Role, Settings};
use totpd::totp::{Parameters, Secret, code_at};
use users::zitadel_users_client::ZitadelUsersClient;
use zitadel::api::zitadel::admin::v1 as admin;
use zitadel::api::zitadel::resources::user::v3alpha as users;

const NOW_S: i64 = 1_795_453_575;

struct Server {
    _dir: TempDir,
    token: String,
    running: Option<Running>,
}

impl Server {
    fn start(tls: Option<TlsFiles>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_seconds(NOW_S);
        let settings = Settings {
            issuer: "Test".parse().unwrap(),
            window: Window::OneEitherSide,
            checkpoints: totpd::model::Checkpointer::Own,
            self_removal: totpd::model::SelfRemoval::Allow,
        };
        let (service, _) = DataDir::create(dir.path(), KeyFile::InDataDir, &settings, now).unwrap();
        let new = NewToken {
            role: Role::Admin,
            name: None,
            lifetime: None,
        };
        let context = Context::command_line(now);
        let (_, token) = service.create_token(&context, new).unwrap();
        let api = Api::new(service, Arc::new(move || now));
        let handler = Handler::of(api);
        let config = Config {
            listen: vec![Listen::Tcp("127.0.0.1:0".to_owned())],
            inherited: Vec::new(),
            public_url: None,
            metrics_listen: None,
            tls,
            trusted_proxies: Vec::new(),
            unix_mode: 0o600,
            private_dir: dir.path().to_owned(),
            changes_at_once: 8,
            commit_batch: COMMIT_BATCH,
            limits: Limits::default(),
            insecure_plaintext: false,
            on_fatal_error: Box::new(|why| panic!("{why}")),
        };
        Self {
            _dir: dir,
            token: token.reveal().to_owned(),
            running: Some(serve::start(config, &handler).unwrap()),
        }
    }

    /// `http://…` or `https://…`, as the server itself says it.
    fn url(&self) -> String {
        let addresses = self.running.as_ref().unwrap().addresses();
        addresses.first().unwrap().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let running = self.running.take().unwrap();
        assert!(running.stop(Duration::from_secs(5)), "everyone has left");
    }
}

fn certificate(dir: &Path) -> (TlsFiles, String) {
    let made = rcgen::generate_simple_self_signed(["totpd.test".to_owned()]).unwrap();
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        group_may_read: false,
    };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
    (files, made.cert.pem())
}

/// What a refusal says to programs.
fn detail(status: &Status) -> (Code, String) {
    let details = zitadel_detail(status.details());
    assert!(
        status.message().ends_with(&format!("({details})")),
        "{status:?}"
    );
    (status.code(), details)
}

/// The id in `google.rpc.Status` of which the first detail is `zitadel.v1.ErrorDetail`.
fn zitadel_detail(bytes: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<pbjson_types::Any>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Id {
        #[prost(string, tag = "1")]
        id: String,
    }
    let details = Details::decode(bytes).unwrap().details;
    let first = details.first().unwrap();
    assert_eq!(first.type_url, "type.googleapis.com/zitadel.v1.ErrorDetail");
    Id::decode(first.value.clone()).unwrap().id
}

async fn story(channel: Channel, token: String) {
    let bearer = move |mut request: Request<()>| {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    };
    let mut events = AdminServiceClient::with_interceptor(channel.clone(), bearer.clone());
    let mut client = ZitadelUsersClient::with_interceptor(channel, bearer);

    let user = users::CreateUser {
        authenticators: Some(users::SetAuthenticators {
            usernames: vec![users::SetUsername {
                username: "alice".to_owned(),
                is_organization_specific: false,
            }],
            password: None,
        }),
        ..users::CreateUser::default()
    };
    let request = users::CreateUserRequest {
        user: Some(user),
        ..users::CreateUserRequest::default()
    };
    let created = client.create_user(request).await.unwrap().into_inner();
    let id = created.details.unwrap().id;

    let request = users::StartTotpRegistrationRequest {
        id: id.clone(),
        ..users::StartTotpRegistrationRequest::default()
    };
    let started = client
        .start_totp_registration(request)
        .await
        .unwrap()
        .into_inner();
    assert!(
        started.uri.starts_with("otpauth://totp/Test:alice?"),
        "{}",
        started.uri
    );

    let secret = Secret::from_base32(&started.secret).unwrap();
    let step: Step = Timestamp::from_seconds(NOW_S).step(Period::ENROLMENT);
    let code = code_at(&secret, Parameters::ENROLMENT, step).unwrap();
    let request = users::VerifyTotpRegistrationRequest {
        id: id.clone(),
        totp_id: started.totp_id.clone(),
        code: code.digits().to_owned(),
        ..users::VerifyTotpRegistrationRequest::default()
    };
    client
        .verify_totp_registration(request.clone())
        .await
        .unwrap();
    let again = client.verify_totp_registration(request).await.unwrap_err();
    assert_eq!(
        detail(&again),
        (Code::FailedPrecondition, "COMMAND-qx4ls".to_owned())
    );

    let request = users::GetUserRequest {
        id: id.clone(),
        ..users::GetUserRequest::default()
    };
    let user = client
        .get_user(request)
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    assert_eq!(user.state(), users::State::UserStateActive);
    let authenticators = user.authenticators.unwrap();
    assert_eq!(authenticators.usernames.first().unwrap().username, "alice");
    let totp = authenticators.totps.first().unwrap();
    assert!(totp.is_verified && totp.totp_id == started.totp_id);

    let request = users::SearchUsersRequest {
        filters: vec![users::SearchFilter {
            filter: Some(users::search_filter::Filter::UsernameFilter(
                users::UsernameFilter {
                    username: "AL".to_owned(),
                    method: 3,
                    is_organization_specific: false,
                },
            )),
        }],
        ..users::SearchUsersRequest::default()
    };
    let found = client.search_users(request).await.unwrap().into_inner();
    assert_eq!(found.details.unwrap().total_result, 1);
    assert_eq!(
        found.result.first().unwrap().details.as_ref().unwrap().id,
        id
    );

    let request = users::RemoveTotpAuthenticatorRequest {
        id: id.clone(),
        totp_id: started.totp_id.clone(),
        ..users::RemoveTotpAuthenticatorRequest::default()
    };
    let removed = client
        .remove_totp_authenticator(request.clone())
        .await
        .unwrap();
    assert_eq!(removed.into_inner().details.unwrap().id, started.totp_id);
    let again = client.remove_totp_authenticator(request).await.unwrap_err();
    assert_eq!(detail(&again), (Code::NotFound, "COMMAND-Hd9sd".to_owned()));

    let request = admin::ListEventsRequest {
        aggregate_id: id.clone(),
        aggregate_types: vec!["user".to_owned()],
        asc: true,
        ..admin::ListEventsRequest::default()
    };
    let listed = events.list_events(request).await.unwrap().into_inner();
    let types = listed.events.iter().map(|it| it.r#type.as_ref().unwrap());
    let types: Vec<&str> = types.map(|it| it.r#type.as_str()).collect();
    assert_eq!(
        types,
        [
            "user.human.added",
            "user.human.mfa.otp.added",
            "user.human.mfa.otp.verified",
            "user.human.mfa.otp.removed"
        ]
    );
    let last = listed.events.last().unwrap();
    let payload = &last.payload.as_ref().unwrap().fields;
    let totp_id = payload["totpId"].kind.as_ref().unwrap();
    assert_eq!(
        *totp_id,
        pbjson_types::value::Kind::StringValue(started.totp_id.clone())
    );
    assert!(last.creation_date.is_some() && last.sequence > 0);
    let not_offered = events.healthz(admin::HealthzRequest {}).await.unwrap_err();
    assert_eq!(not_offered.code(), Code::Unimplemented);

    let request = users::SetPasswordRequest {
        id,
        ..users::SetPasswordRequest::default()
    };
    let not_offered = client.set_password(request).await.unwrap_err();
    assert_eq!(not_offered.code(), Code::Unimplemented);
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

#[test]
fn the_published_client_runs_the_story_in_plaintext() {
    let server = Server::start(None);
    run(async {
        let channel = Channel::from_shared(server.url()).unwrap();
        story(channel.connect().await.unwrap(), server.token.clone()).await;
    });
}

#[test]
fn the_published_client_runs_the_story_under_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = certificate(dir.path());
    let server = Server::start(Some(files));
    assert!(server.url().starts_with("https://"));
    run(async {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(certificate))
            .domain_name("totpd.test");
        let channel = Channel::from_shared(server.url()).unwrap();
        let channel = channel.tls_config(tls).unwrap();
        story(channel.connect().await.unwrap(), server.token.clone()).await;
    });
}
