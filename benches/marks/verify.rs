//! Whether what was answered is what happened: looks into the database after every load.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::Result;
use crate::enrolled::Phone;
use crate::load::Outcome;
use crate::seed::Target;

/// The database as it was before a load.
pub(crate) struct Before {
    connection: Connection,
    totps: i64,
    newest_event: i64,
}

impl Before {
    pub(crate) fn look(database: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let totps = count_totps(&connection)?;
        let sql = "SELECT coalesce(max(id), 0) FROM event";
        let newest_event = connection.query_row(sql, (), |row| row.get(0))?;
        Ok(Self {
            connection,
            totps,
            newest_event,
        })
    }

    /// Of every removal that was answered with 200 the row is gone and there is one event; of every other
    /// the row is there and there is none.
    pub(crate) fn removals(&self, targets: &[Target], outcome: &Outcome) -> Result<()> {
        let failed = failed(outcome)?;
        let events = self.events("totp.removed")?;
        let sql = "SELECT 1 FROM totp WHERE user_id = ?1 AND id = ?2";
        let mut row = self.connection.prepare(sql)?;
        for (place, target) in targets.iter().enumerate() {
            let removed = place < outcome.sent && !failed.contains(&place);
            let id = target.totp();
            let key = (target.user(), &id);
            let found = row.query_row(key, |_| Ok(())).optional()?.is_some();
            let told = events.get(&id).copied().unwrap_or(0);
            if found == removed || told != usize::from(removed) {
                let answered = if removed { "200" } else { "no 200" };
                return Err(format!(
                    "authenticator {id}: answered with {answered}, row found: {found}, events: {told}"
                )
                .into());
            }
        }
        let gone = usize::try_from(self.totps - count_totps(&self.connection)?)?;
        agree("rows gone", gone, outcome.good())?;
        agree("events", events.values().sum(), outcome.good())
    }

    /// Of every check that was answered with 200 the step is used up and there is one event, of every other
    /// neither.
    pub(crate) fn checks(&self, phones: &[&Phone], step: i64, outcome: &Outcome) -> Result<()> {
        let failed = failed(outcome)?;
        let events = self.events("totp.checked")?;
        let sql = "SELECT last_step FROM totp WHERE user_id = ?1 AND id = ?2";
        let mut row = self.connection.prepare(sql)?;
        for (place, phone) in phones.iter().enumerate() {
            let accepted = place < outcome.sent && !failed.contains(&place);
            let id = phone.totp.as_str();
            let key = (phone.user.as_str(), id);
            let last: i64 = row.query_row(key, |row| row.get(0))?;
            let told = events.get(id).copied().unwrap_or(0);
            if (last == step) != accepted || told != usize::from(accepted) {
                let answered = if accepted { "200" } else { "no 200" };
                return Err(format!(
                    "authenticator {id}: answered with {answered} for step {step}, last step used: {last}, events: {told}"
                )
                .into());
            }
        }
        agree("events", events.values().sum(), outcome.good())
    }

    /// How many events of a kind there have been since.
    pub(crate) fn count(&self, kind: &str) -> Result<usize> {
        let sql = "SELECT count(*) FROM event WHERE id > ?1 AND kind = ?2";
        let key = (self.newest_event, kind);
        let count: i64 = self.connection.query_row(sql, key, |row| row.get(0))?;
        Ok(usize::try_from(count)?)
    }

    /// The same, for each thing that they are about.
    fn events(&self, kind: &str) -> Result<HashMap<String, usize>> {
        let sql = "SELECT about_id, count(*) FROM event WHERE id > ?1 AND kind = ?2 GROUP BY 1";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map((self.newest_event, kind), |row| {
            let about: Option<String> = row.get(0)?;
            let count: i64 = row.get(1)?;
            Ok((about.unwrap_or_default(), count as usize))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn count_totps(connection: &Connection) -> Result<i64> {
    let sql = "SELECT count(*) FROM totp";
    Ok(connection.query_row(sql, (), |row| row.get(0))?)
}

/// Which requests were refused. What became of one whose connection broke is unknown.
fn failed(outcome: &Outcome) -> Result<HashSet<usize>> {
    match outcome.statuses.get(&0) {
        Some(count) => Err(format!("{count} connections broke").into()),
        None => Ok(outcome.failed.iter().map(|(place, _)| *place).collect()),
    }
}

pub(crate) fn agree(what: &str, found: usize, answered: usize) -> Result<()> {
    if found == answered {
        Ok(())
    } else {
        Err(format!("{what}: {found} in the database, {answered} by the answers").into())
    }
}
