//! `key rotate`.

use std::sync::Arc;

use serde::Serialize;
use totpd::error::Result;
use totpd::model::Clock;
use totpd::service::{Caller, Service};

use super::now;
use super::output::Output;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RotationDocument {
    secrets: usize,
    was_unfinished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with: Option<String>,
    replicated: bool,
}

pub(super) fn rotate(service: &Service, out: &Output) -> Result<()> {
    let clock: Clock = Arc::new(now);
    let rotated = service.rotate_key(Caller::command_line(), &clock)?;
    let paths = rotated.to_replace.as_ref();
    let document = RotationDocument {
        secrets: rotated.secrets,
        was_unfinished: rotated.was_unfinished,
        replace: paths.map(|(old, _)| old.display().to_string()),
        with: paths.map(|(_, new)| new.display().to_string()),
        replicated: rotated.is_replicated,
    };
    let done = if rotated.was_unfinished {
        "completed the rotation of the master key"
    } else {
        "rotated the master key"
    };
    out.answer_change(done, &document, || {
        let next = match (&document.replace, &document.with) {
            (Some(old), Some(new)) => format!(
                "Put the key of {new} in the place of {old}. Until that is done, totpd needs it as the next key."
            ),
            _ => "Keep a copy of the new master.key, apart from backups.".to_owned(),
        };
        let replica = if document.replicated {
            "\nThe WAL and Litestream's replica keep what the old key opens, the replica for as long as its retention says: \
             keep the old key secret, or make the replica anew."
        } else {
            ""
        };
        format!(
            "{done}; {} secrets were sealed anew\n{next}\n\
             Backups made before need the old key (restore --old-key FILE). Make a new one now.{replica}",
            document.secrets
        )
    })
}
