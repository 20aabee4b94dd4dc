//! A batch of commits as statements: what it asks, and what it writes.

use quark_runtime::store::{Commit, StoreError};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use super::columns::{Content, etag};
use super::error::{Errors, Stage};
use crate::batch::{Answers, Questions, Writes};
use crate::fence::Last;
use crate::known::Known;
use crate::sql::{int, time, unsigned};

/// Decides the commits and writes those that go through, within the open transaction. The answers, and what is
/// learned, are those that hold once it is committed.
pub(super) fn run(
    connection: &Connection,
    commits: &[&Commit],
    known: &mut Known,
    errors: &Errors,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let questions = Questions::of(commits.iter().copied());
    let failed = |error| errors.store_error(error, Stage::Write);
    let mut answers = ask(connection, &questions, known).map_err(failed)?;
    let (results, writes) = questions.decide(commits.iter().copied(), &mut answers, &errors.store);
    known.learn(&questions, &answers);
    write(connection, &writes).map_err(failed)?;
    Ok(results)
}

fn ask(connection: &Connection, questions: &Questions<'_>, known: &mut Known) -> rusqlite::Result<Answers> {
    let mut answers = Answers::none(questions);
    let open = known.answer_actors(questions, &mut answers);
    let sql = "SELECT epoch, sequence FROM quark_actor WHERE actor_type = ? AND actor_key = ?";
    each(connection, sql, &open, |statement, index| {
        let actor = questions.actors[*index];
        let row = statement.query_row(params![actor.actor_type, actor.key.as_str()], |row| etag(row, 0));
        answers.actors[*index] = row.optional()?.map(Last::from);
        Ok(())
    })?;

    let (slots, journals) = known.answer_names(questions, &mut answers);
    let sql = "SELECT epoch, sequence FROM quark_state WHERE actor_type = ? AND actor_key = ? AND name = ?";
    each(connection, sql, &slots, |statement, index| {
        let (actor, name) = questions.slots[*index];
        let key = params![actor.actor_type, actor.key.as_str(), name];
        answers.slots[*index] = statement.query_row(key, |row| etag(row, 0)).optional()?;
        Ok(())
    })?;
    let sql = "SELECT last FROM quark_journal WHERE actor_type = ? AND actor_key = ? AND journal = ?";
    each(connection, sql, &journals, |statement, index| {
        let (actor, name) = questions.journals[*index];
        let key = params![actor.actor_type, actor.key.as_str(), name];
        let last = |row: &Row<'_>| Ok(unsigned(row.get(0)?));
        answers.journals[*index] = statement.query_row(key, last).optional()?.unwrap_or(0);
        Ok(())
    })?;

    let inbox: Vec<usize> = (0..questions.inbox.len()).collect();
    let sql = "SELECT 1 FROM quark_inbox WHERE actor_type = ? AND actor_key = ? AND message = ?";
    each(connection, sql, &inbox, |statement, index| {
        let (actor, message) = questions.inbox[*index];
        answers.inbox[*index] =
            statement.exists(params![actor.actor_type, actor.key.as_str(), message.as_str()])?;
        Ok(())
    })?;
    Ok(answers)
}

fn write(connection: &Connection, writes: &Writes<'_>) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO quark_actor VALUES (?, ?, ?, ?)";
    each(connection, sql, &writes.actors, |statement, row| {
        let (actor, last) = (row.actor, row.last);
        let columns = params![actor.actor_type, actor.key.as_str(), int(last.epoch.0), int(last.sequence)];
        statement.execute(columns).map(drop)
    })?;

    let sql = "INSERT INTO quark_state VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence, \
               format = excluded.format, version = excluded.version, value = excluded.value";
    each(connection, sql, &writes.slots, |statement, row| {
        let (actor, etag, value) = (row.actor, row.etag, row.value);
        let columns = params![
            actor.actor_type,
            actor.key.as_str(),
            row.name,
            int(etag.epoch.0),
            int(etag.sequence),
            value.format,
            value.version,
            Content(value),
        ];
        statement.execute(columns).map(drop)
    })?;
    let sql = "DELETE FROM quark_state WHERE actor_type = ? AND actor_key = ? AND name = ?";
    each(connection, sql, &writes.cleared, |statement, (actor, name)| {
        statement.execute(params![actor.actor_type, actor.key.as_str(), name]).map(drop)
    })?;

    let sql = "INSERT INTO quark_journal VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT DO UPDATE SET last = excluded.last, \
               snapshot_sequence = ifnull(excluded.snapshot_sequence, snapshot_sequence), \
               snapshot_format = ifnull(excluded.snapshot_format, snapshot_format), \
               snapshot_version = ifnull(excluded.snapshot_version, snapshot_version), \
               snapshot = ifnull(excluded.snapshot, snapshot)";
    each(connection, sql, &writes.journals, |statement, row| {
        let (actor, snapshot) = (row.actor, row.snapshot);
        let columns = params![
            actor.actor_type,
            actor.key.as_str(),
            row.journal,
            int(row.last),
            snapshot.map(|(sequence, _)| int(sequence)),
            snapshot.map(|(_, value)| value.format.as_ref()),
            snapshot.map(|(_, value)| value.version),
            snapshot.map(|(_, value)| Content(value)),
        ];
        statement.execute(columns).map(drop)
    })?;
    let sql = "INSERT INTO quark_event \
               (actor_type, actor_key, journal, sequence, time, format, version, value) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    each(connection, sql, &writes.events, |statement, row| {
        let (actor, value) = (row.actor, row.value);
        let columns = params![
            actor.actor_type,
            actor.key.as_str(),
            row.journal,
            int(row.sequence),
            time(row.time),
            value.format,
            value.version,
            Content(value),
        ];
        statement.execute(columns).map(drop)
    })?;

    let sql = "INSERT INTO quark_outbox \
               (actor_type, actor_key, epoch, sequence, message_index, time, \
               to_type, to_key, method, format, version, value) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    each(connection, sql, &writes.outbox, |statement, row| {
        let (from, to, body) = (row.from, &row.message.to, &row.message.body);
        let columns = params![
            from.actor_type,
            from.key.as_str(),
            int(row.commit.epoch.0),
            int(row.commit.sequence),
            row.index,
            time(row.time),
            to.actor_type,
            to.key.as_str(),
            row.message.method,
            body.format,
            body.version,
            Content(body),
        ];
        statement.execute(columns).map(drop)
    })?;
    let sql = "INSERT INTO quark_inbox VALUES (?, ?, ?, ?)";
    each(connection, sql, &writes.inbox, |statement, (actor, message, at)| {
        let columns = params![actor.actor_type, actor.key.as_str(), message.as_str(), time(*at)];
        statement.execute(columns).map(drop)
    })
}

/// Runs a statement once for each row. It is prepared once in the connection's life, and only if there is a row.
pub(super) fn each<R>(
    connection: &Connection,
    sql: &str,
    rows: &[R],
    mut run: impl FnMut(&mut CachedStatement<'_>, &R) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(sql)?;
    rows.iter().try_for_each(|row| run(&mut statement, row))
}
