//! The settings of an instance. They lie in the database, and every call reads them in its own transaction: what
//! the command line changes beside a server holds from the server's next transaction on.

use super::{Context, Service};
use crate::error::Result;
use crate::model::{Name, Window};
pub use crate::store::Settings;
use crate::store::{Event, EventKind};

/// Settings to change; the others stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// What an authenticator app shows beside the account.
    pub issuer: Option<Name>,
    /// How many steps either side of the present one are good.
    pub window: Option<Window>,
}

impl Service {
    /// The settings as they are now.
    pub fn settings(&self, context: &Context) -> Result<Settings> {
        self.read_as_admin(context, |tx| tx.settings())
    }

    /// Changes settings, and returns all of them. What has that value already is no change and leaves no event.
    pub fn change_settings(&self, context: &Context, change: SettingsChange) -> Result<Settings> {
        self.change_as_admin(context, move |call, tx| {
            let before = tx.settings()?;
            let after = Settings {
                issuer: change.issuer.unwrap_or_else(|| before.issuer.clone()),
                window: change.window.unwrap_or(before.window),
            };
            let changes = [
                (EventKind::IssuerChanged, after.issuer != before.issuer),
                (EventKind::WindowChanged, after.window != before.window),
            ];
            for (kind, _) in changes.into_iter().filter(|(_, is_new)| *is_new) {
                tx.append(&Event {
                    kind,
                    source: &call.principal.source,
                    org: None,
                    user: None,
                    about: None,
                })?;
            }
            if after != before {
                tx.change_settings(&after)?;
            }
            Ok(after)
        })
    }
}
