//! A batch of commits as a few statements: what it asks, and what it writes.

use quark_base::Timestamp;
use quark_runtime::store::{Address, Commit, ETag, Epoch, MessageId, StoreError};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::chunks::Chunked;
use super::columns::{bind_actor, bind_etag, bind_value};
use super::error::{Errors, Stage};
use crate::batch::{Answers, Questions, Writes};
use crate::fence::Last;
use crate::known::Known;
use crate::sql::{int, limit, time, unsigned};

/// The statements of a batch.
pub(super) struct Statements {
    ask_actors: Chunked,
    ask_slots: Chunked,
    ask_journals: Chunked,
    ask_inbox: Chunked,
    actors: Chunked,
    slots: Chunked,
    clear: Chunked,
    journals: Chunked,
    events: Chunked,
    outbox: Chunked,
    inbox: Chunked,
}

impl Statements {
    pub(super) fn new() -> Self {
        // CROSS JOIN fixes the order of the look-up: each row that is asked for, by the key of the table.
        let ask = |columns: &str, table: &str, key: &str, name: &str| {
            let (extra, and, row) = match name {
                "" => ("", String::new(), "(?,?,?)"),
                name => (", n", format!(" AND {table}.{name} = w.n"), "(?,?,?,?)"),
            };
            Chunked::new(
                &format!("WITH w (i, t, k{extra}) AS (VALUES"),
                row,
                &format!(
                    ") SELECT w.i, {columns} FROM w CROSS JOIN {table} \
                     ON {table}.actor_type = w.t AND {table}.{key} = w.k{and}"
                ),
            )
        };
        Self {
            ask_actors: ask("epoch, sequence", "quark_actor", "actor_key", ""),
            ask_slots: ask("epoch, sequence", "quark_state", "actor_key", "name"),
            ask_journals: ask("last", "quark_journal", "actor_key", "journal"),
            ask_inbox: ask("1", "quark_inbox", "actor_key", "message"),
            actors: Chunked::new("INSERT OR REPLACE INTO quark_actor VALUES", "(?,?,?,?)", ""),
            slots: Chunked::new(
                "INSERT INTO quark_state VALUES",
                "(?,?,?,?,?,?,?,?)",
                "ON CONFLICT DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence, \
                 format = excluded.format, version = excluded.version, value = excluded.value",
            ),
            clear: Chunked::new(
                "DELETE FROM quark_state WHERE (actor_type, actor_key, name) IN (VALUES",
                "(?,?,?)",
                ")",
            ),
            journals: Chunked::new(
                "INSERT INTO quark_journal VALUES",
                "(?,?,?,?,?,?,?,?)",
                "ON CONFLICT DO UPDATE SET last = excluded.last, \
                 snapshot_sequence = ifnull(excluded.snapshot_sequence, snapshot_sequence), \
                 snapshot_format = ifnull(excluded.snapshot_format, snapshot_format), \
                 snapshot_version = ifnull(excluded.snapshot_version, snapshot_version), \
                 snapshot = ifnull(excluded.snapshot, snapshot)",
            ),
            events: Chunked::new(
                "INSERT INTO quark_event \
                 (actor_type, actor_key, journal, sequence, time, format, version, value) VALUES",
                "(?,?,?,?,?,?,?,?)",
                "",
            ),
            outbox: Chunked::new(
                "INSERT INTO quark_outbox \
                 (actor_type, actor_key, epoch, sequence, message_index, time, \
                 to_type, to_key, method, format, version, value) VALUES",
                "(?,?,?,?,?,?,?,?,?,?,?,?)",
                "",
            ),
            inbox: Chunked::new("INSERT INTO quark_inbox VALUES", "(?,?,?,?)", ""),
        }
    }

    /// Decides the commits and writes those that go through, within the open transaction. The answers, and what is
    /// learned, are those that hold once it is committed.
    pub(super) async fn run(
        &self,
        connection: &mut SqliteConnection,
        commits: &[&Commit],
        known: &mut Known,
        errors: &Errors,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let questions = Questions::of(commits.iter().copied());
        let failed = |error| errors.store_error(error, Stage::Write);
        let mut answers = self.ask(connection, &questions, known).await.map_err(failed)?;
        let (results, writes) = questions.decide(commits.iter().copied(), &mut answers, &errors.store);
        known.learn(&questions, &answers);
        self.write(connection, &writes).await.map_err(failed)?;
        Ok(results)
    }

    async fn ask(
        &self,
        connection: &mut SqliteConnection,
        questions: &Questions<'_>,
        known: &mut Known,
    ) -> Result<Answers, sqlx::Error> {
        let mut answers = Answers::none(questions);
        let open = known.answer_actors(questions, &mut answers);
        for (statement, part) in self.ask_actors.parts(&open) {
            let query = part.iter().fold(sqlx::query(statement), |query, index| {
                bind_actor(query.bind(limit(*index)), questions.actors[*index])
            });
            for row in query.fetch_all(&mut *connection).await? {
                let last = Last { epoch: Epoch(unsigned(row.get(1))), sequence: unsigned(row.get(2)) };
                answers.actors[place(&row)] = Some(last);
            }
        }
        let (slots, journals) = known.answer_names(questions, &mut answers);
        for row in ask_named(connection, &self.ask_slots, &questions.slots, &slots).await? {
            let etag = ETag { epoch: Epoch(unsigned(row.get(1))), sequence: unsigned(row.get(2)) };
            answers.slots[place(&row)] = Some(etag);
        }
        for row in ask_named(connection, &self.ask_journals, &questions.journals, &journals).await? {
            answers.journals[place(&row)] = unsigned(row.get(1));
        }
        let inbox: Vec<_> =
            questions.inbox.iter().map(|(actor, message)| (*actor, message.as_str())).collect();
        let all: Vec<_> = (0..inbox.len()).collect();
        for row in ask_named(connection, &self.ask_inbox, &inbox, &all).await? {
            answers.inbox[place(&row)] = true;
        }
        Ok(answers)
    }

    async fn write(&self, connection: &mut SqliteConnection, writes: &Writes<'_>) -> Result<(), sqlx::Error> {
        for (statement, part) in self.actors.parts(&writes.actors) {
            let query = part.iter().fold(sqlx::query(statement), |query, row| {
                bind_actor(query, row.actor).bind(int(row.last.epoch.0)).bind(int(row.last.sequence))
            });
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.slots.parts(&writes.slots) {
            let query = part.iter().fold(sqlx::query(statement), |query, row| {
                let query = bind_actor(query, row.actor).bind(row.name);
                bind_value(bind_etag(query, row.etag), row.value)
            });
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.clear.parts(&writes.cleared) {
            let query = part
                .iter()
                .fold(sqlx::query(statement), |query, (actor, name)| bind_actor(query, actor).bind(*name));
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.journals.parts(&writes.journals) {
            let query = part.iter().fold(sqlx::query(statement), |query, row| {
                let query = bind_actor(query, row.actor).bind(row.journal).bind(int(row.last));
                match row.snapshot {
                    Some((sequence, value)) => bind_value(query.bind(int(sequence)), value),
                    None => {
                        query.bind(None::<i64>).bind(None::<String>).bind(None::<i64>).bind(None::<Vec<u8>>)
                    }
                }
            });
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.events.parts(&writes.events) {
            let query = part.iter().fold(sqlx::query(statement), |query, row| {
                let query = bind_actor(query, row.actor).bind(row.journal);
                bind_value(query.bind(int(row.sequence)).bind(time(row.time)), row.value)
            });
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.outbox.parts(&writes.outbox) {
            let query = part.iter().fold(sqlx::query(statement), |query, row| {
                let query = bind_etag(bind_actor(query, row.from), row.commit);
                let query = query.bind(i64::from(row.index)).bind(time(row.time));
                let query = bind_actor(query, &row.message.to).bind(row.message.method.as_ref());
                bind_value(query, &row.message.body)
            });
            query.execute(&mut *connection).await?;
        }
        for (statement, part) in self.inbox.parts(&writes.inbox) {
            let bind = |query, (actor, message, at): &(&Address, &MessageId, Timestamp)| {
                bind_actor(query, actor).bind(message.as_str()).bind(time(*at))
            };
            part.iter().fold(sqlx::query(statement), bind).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Asks about some of the things that have an actor and a name.
async fn ask_named(
    connection: &mut SqliteConnection,
    statement: &Chunked,
    things: &[(&Address, &str)],
    open: &[usize],
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let mut rows = Vec::new();
    for (statement, part) in statement.parts(open) {
        let query = part.iter().fold(sqlx::query(statement), |query, index| {
            let (actor, name) = things[*index];
            bind_actor(query.bind(limit(*index)), actor).bind(name)
        });
        rows.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

/// Which question a row answers.
fn place(row: &SqliteRow) -> usize {
    // It is one of the indices that were bound.
    usize::try_from(row.get::<i64, _>(0)).unwrap_or(usize::MAX)
}
