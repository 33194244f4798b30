//! The settings of an instance. Every call reads them from the database in its own transaction, so a change by the
//! command line applies from a running server's next transaction on.

use super::{Context, Service};
use crate::error::Result;
use crate::model::{Checkpointer, Name, SelfRemoval, Window};
pub use crate::store::Settings;
use crate::store::{Event, EventKind};

/// New values of settings. `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// The name that authenticator apps show beside the account.
    pub issuer: Option<Name>,
    /// The steps either side of the current one whose codes are good.
    pub window: Option<Window>,
    /// Who checkpoints the WAL.
    pub checkpoints: Option<Checkpointer>,
    /// Whether `self` tokens need a code to change what their user logs in with.
    pub self_removal: Option<SelfRemoval>,
}

impl Service {
    /// The current settings.
    pub fn settings(&self, context: &Context) -> Result<Settings> {
        self.read_as_admin(context, |tx| tx.settings())
    }

    /// Changes settings and returns all of them. A setting that has the new value already leaves no event.
    pub fn change_settings(&self, context: &Context, change: SettingsChange) -> Result<Settings> {
        self.change_as_admin(context, move |call, tx| {
            let before = tx.settings()?;
            let after = Settings {
                issuer: change.issuer.unwrap_or_else(|| before.issuer.clone()),
                window: change.window.unwrap_or(before.window),
                checkpoints: change.checkpoints.unwrap_or(before.checkpoints),
                self_removal: change.self_removal.unwrap_or(before.self_removal),
            };
            let changes = [
                (EventKind::IssuerChanged, after.issuer != before.issuer),
                (EventKind::WindowChanged, after.window != before.window),
                (
                    EventKind::CheckpointsChanged,
                    after.checkpoints != before.checkpoints,
                ),
                (
                    EventKind::SelfRemovalChanged,
                    after.self_removal != before.self_removal,
                ),
            ];
            for (kind, _) in changes.into_iter().filter(|(_, is_new)| *is_new) {
                tx.append(&Event {
                    kind,
                    source: &call.principal.source,
                    org: None,
                    user: None,
                    about: None,
                    name: None,
                })?;
            }
            if after != before {
                tx.change_settings(&after)?;
            }
            if after.checkpoints == Checkpointer::Own && before.checkpoints != after.checkpoints {
                tx.drop_litestream_tables()?;
            }
            Ok(after)
        })
    }
}
