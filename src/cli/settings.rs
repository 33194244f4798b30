//! `settings show` and `settings set`.

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::model::{Checkpointer, Name};
use totpd::service::{Service, Settings, SettingsChange};

use super::output::{self, Output};
use super::{DataLocation, args, operator};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettingsDocument {
    issuer: String,
    window: u16,
    checkpoints: &'static str,
    self_removal: &'static str,
}

impl From<&Settings> for SettingsDocument {
    fn from(it: &Settings) -> Self {
        Self {
            issuer: it.issuer.to_string(),
            window: it.window.steps(),
            checkpoints: it.checkpoints.as_str(),
            self_removal: it.self_removal.as_str(),
        }
    }
}

pub(super) fn run(location: &DataLocation, out: &Output, command: args::Settings) -> Result<()> {
    match command {
        args::Settings::Show => {
            let settings = location.open()?.settings(&operator())?;
            out.answer(&SettingsDocument::from(&settings), || table(&settings))
        }
        args::Settings::Set { changes } => {
            let change = read(&changes)?;
            let mut dir = location.open_dir()?;
            if change.checkpoints == Some(Checkpointer::Litestream) {
                // Litestream may have begun already.
                dir = dir.with_litestream();
            }
            let settings = Service::open(dir)?.change_settings(&operator(), change)?;
            let done = format!("set {}", changes.join(" "));
            out.answer_change(&done, &SettingsDocument::from(&settings), || {
                table(&settings)
            })
        }
    }
}

/// Parses all changes before any is applied. A key that is given twice is refused, because one value would be lost.
fn read(changes: &[String]) -> Result<SettingsChange> {
    let mut change = SettingsChange::default();
    for it in changes {
        let (key, value) = it
            .split_once('=')
            .ok_or_else(|| Error::invalid(it.clone(), "expected KEY=VALUE"))?;
        let was_given = match key {
            "issuer" => change
                .issuer
                .replace(Name::parse_issuer("issuer", value)?)
                .is_some(),
            "window" => change.window.replace(value.parse()?).is_some(),
            "checkpoints" => change.checkpoints.replace(value.parse()?).is_some(),
            "self-removal" => change.self_removal.replace(value.parse()?).is_some(),
            _ => {
                let problem = "there is no such setting; the settings are issuer, window, checkpoints and self-removal";
                return Err(Error::invalid(key.to_owned(), problem));
            }
        };
        if was_given {
            return Err(Error::invalid(key.to_owned(), "was given twice"));
        }
    }
    Ok(change)
}

fn table(settings: &Settings) -> String {
    let rows = [
        ("issuer", settings.issuer.to_string()),
        ("window", settings.window.steps().to_string()),
        ("checkpoints", settings.checkpoints.to_string()),
        ("self-removal", settings.self_removal.to_string()),
    ];
    let rows = rows.map(|(key, value)| vec![key.to_owned(), value]);
    output::table(&["SETTING", "VALUE"], &rows)
}
