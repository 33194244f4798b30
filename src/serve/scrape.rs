//! The address for metrics: `/metrics`, and the two probes. It has its own few connections and threads, so that a slow
//! scraper holds up no client, and a flood of clients no scrape.

use std::sync::Arc;

use super::answer::{close_after, head_of};
use super::head::RequestHead;
use super::incoming::{Ended, Incoming};
use super::{Handler, Limits};
use crate::api::counts::{CallName, CodeName, Transport};
use crate::api::http::{Reply, Request, Via};
use crate::api::status::{Refusal, TransportError};
use crate::connections::wire::Wire;
use crate::connections::{ConnectionGuard, Connections, InFlight};
use crate::metrics::{Format, Metrics};

/// Connections at once: a scraper needs one, and two may scrape while a person looks.
const CONNECTIONS: usize = 8;
/// What a request may hold of memory whatever the others hold.
const OWN_BYTES: usize = 8 * 1024;

/// What all `metrics-client` threads share.
pub(super) struct MetricsServer {
    /// Those of this address.
    pub(super) connections: Arc<Connections>,
    handler: Arc<Handler>,
    metrics: Metrics,
}

impl MetricsServer {
    /// Shows `handler` and the clients' `connections` under the same limits of time and length.
    pub(super) fn new(handler: &Arc<Handler>, connections: &Arc<Connections>) -> Arc<Self> {
        let limits = Limits {
            connections: CONNECTIONS,
            connections_per_peer: CONNECTIONS,
            ..connections.limits.clone()
        };
        Arc::new(Self {
            connections: Connections::new(limits, Vec::new(), None, 1),
            handler: Arc::clone(handler),
            metrics: Metrics::new(Arc::clone(handler), Arc::clone(connections)),
        })
    }

    /// Answers the requests of one connection. The whole of a `metrics-client` thread.
    pub(super) fn serve(&self, connection: &ConnectionGuard) {
        let wire = Wire::plain(connection.stream.clone());
        let lease = self.connections.requests.single(OWN_BYTES);
        let mut incoming = Incoming::new(wire, &self.connections.limits, lease);
        while incoming.first_byte().is_ok() {
            let Some(mut request) = connection.begin() else {
                return;
            };
            if self.exchange(connection, &mut incoming, &mut request) && request.finish() {
                continue;
            }
            request.linger();
            incoming.wire.finish(self.connections.limits.take_time);
            return incoming.drain();
        }
    }

    /// Reads and answers one request. Returns whether the connection stays open.
    fn exchange(
        &self,
        connection: &ConnectionGuard,
        incoming: &mut Incoming<'_>,
        request: &mut InFlight,
    ) -> bool {
        let mut head = RequestHead::default();
        let read = incoming.begin(request.begun());
        let read = read.and_then(|()| incoming.head(&mut head));
        // A body means nothing here, and is read so that the next request is found behind it.
        let read = read.and_then(|()| incoming.body(head.body));
        incoming.end();
        let answered = match read {
            Ok(_) => self.answer(&head),
            Err(Ended::Refused(refusal)) => Err(refusal),
            Err(Ended::Closed) => return false,
        };
        let keep_alive =
            head.keep_alive && answered.is_ok() && request.received() && !request.is_last();
        let reply = answered.unwrap_or_else(|refusal| self.handler.refuse(refusal, None, None));
        let ids = &self.connections.request_ids;
        let request_id = ids.choose(connection.peer, head.request_id.take());
        let mut answer = head_of(&reply, request_id.as_str(), self.handler.now()).into_bytes();
        if !keep_alive {
            close_after(&mut answer);
        }
        if head.method != "HEAD" {
            answer.extend_from_slice(&reply.body);
        }
        request.responded();
        let take_time = self.connections.limits.take_time;
        incoming.wire.write_all(&answer, take_time).is_ok() && keep_alive
    }

    fn answer(&self, head: &RequestHead) -> Result<Reply, TransportError> {
        let path = head.target.split('?').next().unwrap_or_default();
        let is_read = matches!(head.method.as_str(), "GET" | "HEAD");
        let counts = self.handler.api().counts();
        match path {
            "/debug/healthz" | "/debug/ready" => self.handler.reply_to(&Request {
                via: Via::Http,
                method: &head.method,
                target: &head.target,
                authorization: None,
                content_type: None,
                origin: None,
                code: None,
                body: &[],
                peer: None,
                request_id: None,
            }),
            "/metrics" if is_read => {
                counts.note(Transport::Rest, CallName::Metrics, CodeName::Ok);
                self.page(Format::of(head.accept.as_deref()))
            }
            "/metrics" => {
                counts.note(Transport::Rest, CallName::Metrics, CodeName::Unimplemented);
                Ok(Refusal::method_not_allowed("GET, HEAD").into_reply())
            }
            _ => {
                counts.note(Transport::Rest, CallName::Other, CodeName::NotFound);
                Ok(Refusal::no_such_path().into_reply())
            }
        }
    }

    fn page(&self, format: Format) -> Result<Reply, TransportError> {
        let page = self.metrics.page(format).map_err(|_| TransportError::Bug)?;
        Ok(Reply {
            status: 200,
            content_type: format.content_type(),
            headers: Vec::new(),
            body: page.into_bytes(),
        })
    }
}
