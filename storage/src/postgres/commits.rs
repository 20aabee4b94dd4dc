//! A batch of commits as a few statements: what it asks, and what it writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use quark_runtime::store::{Address, Commit, Epoch, StoreError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::columns::{Values, addresses, etag};
use super::error::is_locked;
use crate::batch::{ActorRow, Answers, Questions, SlotRow, Writes};
use crate::fence::Last;
use crate::known::Known;
use crate::sql::{int, time, unsigned};

const INSERT_ACTORS: &str = "INSERT INTO quark_actor (actor_type, actor_key, epoch, sequence) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) ON CONFLICT DO NOTHING";
/// A try waits as short as can be: many of them may come one after the other.
const TRY: &str = "SAVEPOINT try; SET LOCAL lock_timeout = '1ms'";
const UNDO_TRY: &str = "ROLLBACK TO SAVEPOINT try; RELEASE SAVEPOINT try";
const INSERT_STATES: &str = "INSERT INTO quark_state \
     (actor_type, actor_key, name, epoch, sequence, format, version, value_text, value) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], \
     $6::text[], $7::bigint[], $8::text[], $9::bytea[])";
/// An `INSERT … ON CONFLICT` would lock each row before it writes it, once more to be written to the log.
const UPDATE_STATES: &str = "UPDATE quark_state s SET epoch = w.e, sequence = w.q, format = w.f, version = w.v, \
     value_text = w.x, value = w.b \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], \
     $6::text[], $7::bigint[], $8::text[], $9::bytea[]) AS w (t, k, n, e, q, f, v, x, b) \
     WHERE s.actor_type = w.t AND s.actor_key = w.k AND s.name = w.n";

/// How a batch went, within its transaction.
pub(super) enum Batch {
    /// Everything is written that will be; the outcomes hold once it is committed.
    Written(Vec<Outcome>),
    /// Somebody else was in between. Rolled back, and done again, it will see what they did.
    Again,
}

/// What became of one commit.
pub(super) enum Outcome {
    Done(Result<(), StoreError>),
    /// Nothing of it is written: somebody else keeps its actor's row.
    Locked,
}

/// How much is taken for granted before a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caution {
    /// That actors stand as they are remembered, and that nobody else is making those that are not there.
    Hopeful,
    /// Nothing: somebody else had a lock. It is looked which rows are locked and which are in the making.
    Careful,
}

/// Decides the commits and writes those that go through, within the open transaction. What is learned holds once it is
/// committed.
pub(super) async fn run(
    connection: &mut PgConnection,
    commits: &[&Commit],
    caution: Caution,
    known: &mut Known,
    store: &Arc<str>,
) -> Result<Batch, sqlx::Error> {
    let mut questions = Questions::of(commits.iter().copied());
    let mut answers = Answers::none(&questions);
    if caution == Caution::Hopeful
        && let Some((results, writes)) = foresee(&questions, &mut answers, commits, known, store)
    {
        known.learn(&questions, &answers);
        return Ok(match write(connection, &writes).await? {
            true => Batch::Written(results.into_iter().map(Outcome::Done).collect()),
            false => Batch::Again,
        });
    }
    answers = Answers::none(&questions);
    let mut locked = lock(connection, &questions, &mut answers).await?;
    if caution == Caution::Careful {
        let is_new =
            |(actor, last): (&&'_ Address, &Option<Last>)| last.is_none() && !locked.contains(*actor);
        let pairs = questions.actors.iter().zip(&answers.actors);
        let new: Vec<&Address> = pairs.filter(|pair| is_new(*pair)).map(|(actor, _)| *actor).collect();
        locked.extend(in_the_making(connection, new).await?);
    }
    if locked.is_empty() {
        let results = decide(connection, commits, &questions, answers, known, store).await?;
        return Ok(results.map_or(Batch::Again, |results| {
            Batch::Written(results.into_iter().map(Outcome::Done).collect())
        }));
    }
    // The others are a batch of their own, under the locks that are had.
    let is_locked = |commit: &&Commit| locked.contains(&&commit.actor);
    let rest: Vec<&Commit> = commits.iter().copied().filter(|commit| !is_locked(commit)).collect();
    let lasts: HashMap<&Address, Option<Last>> =
        questions.actors.iter().copied().zip(answers.actors).collect();
    questions = Questions::of(rest.iter().copied());
    answers = Answers::none(&questions);
    for (actor, last) in questions.actors.iter().zip(&mut answers.actors) {
        *last = lasts.get(actor).copied().flatten();
    }
    let Some(results) = decide(connection, &rest, &questions, answers, known, store).await? else {
        return Ok(Batch::Again);
    };
    let mut results = results.into_iter();
    let outcome = |commit| if is_locked(commit) { None } else { results.next() };
    Ok(Batch::Written(
        commits.iter().map(outcome).map(|result| result.map_or(Outcome::Locked, Outcome::Done)).collect(),
    ))
}

/// Decides commits of which everything that they expect is known, so that nothing has to be asked. Whether it still
/// holds turns out when the actors' rows are written, so each actor must have one to write.
fn foresee<'a>(
    questions: &Questions<'a>,
    answers: &mut Answers,
    commits: &[&'a Commit],
    known: &mut Known,
    store: &Arc<str>,
) -> Option<(Vec<Result<(), StoreError>>, Writes<'a>)> {
    if !questions.inbox.is_empty() || !known.answer_actors(questions, answers).is_empty() {
        return None;
    }
    let (slots, journals) = known.answer_names(questions, answers);
    if !slots.is_empty() || !journals.is_empty() {
        return None;
    }
    let (results, writes) = questions.decide(commits.iter().copied(), answers, store);
    (writes.actors.len() == questions.actors.len()).then_some((results, writes))
}

/// Locks the actors' rows as far as nobody else has them, and reads them. Gives the actors that somebody else has.
///
/// As none is waited for, one silo that stalls keeps back its own actors only, and two batches never wait for each other
/// in a circle.
async fn lock<'a>(
    connection: &mut PgConnection,
    questions: &Questions<'a>,
    answers: &mut Answers,
) -> Result<HashSet<&'a Address>, sqlx::Error> {
    let (types, keys) = addresses(questions.actors.iter().copied());
    let rows = sqlx::query(
        "SELECT w.i, a.epoch, a.sequence FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (t, k, i) \
         JOIN quark_actor a ON a.actor_type = w.t AND a.actor_key = w.k FOR UPDATE OF a SKIP LOCKED",
    );
    for row in rows.bind(types).bind(keys).fetch_all(&mut *connection).await? {
        let last = Last { epoch: Epoch(unsigned(row.get(1))), sequence: unsigned(row.get(2)) };
        answers.actors[place(&row)] = Some(last);
    }
    // What was not had is new, or somebody else's.
    let missing: Vec<&Address> = questions
        .actors
        .iter()
        .zip(&answers.actors)
        .filter_map(|(actor, last)| last.is_none().then_some(*actor))
        .collect();
    if missing.is_empty() {
        return Ok(HashSet::new());
    }
    let (types, keys) = addresses(missing.iter().copied());
    let rows = sqlx::query(
        "SELECT w.i FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (t, k, i) \
         JOIN quark_actor a ON a.actor_type = w.t AND a.actor_key = w.k",
    );
    let rows = rows.bind(types).bind(keys).fetch_all(connection).await?;
    Ok(rows.iter().filter_map(|row| missing.get(place(row)).copied()).collect())
}

/// Which of these actors, that have no row, somebody else is making a row for.
///
/// There is no way to ask but to try. All are tried at once, and where that waits, each half by itself; then everything is
/// as it was.
async fn in_the_making<'a>(
    connection: &mut PgConnection,
    mut new: Vec<&'a Address>,
) -> Result<Vec<&'a Address>, sqlx::Error> {
    // In the order of the keys, so that two batches never wait for each other in a circle.
    new.sort();
    let mut parts = vec![new.as_slice()];
    let mut found = Vec::new();
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        sqlx::raw_sql(TRY).execute(&mut *connection).await?;
        let (types, keys) = addresses(part.iter().copied());
        let nought = vec![0_i64; part.len()];
        let query = sqlx::query(INSERT_ACTORS).bind(types).bind(keys).bind(&nought).bind(&nought);
        match query.execute(&mut *connection).await {
            Ok(_) => (),
            Err(error) if is_locked(&error) && part.len() == 1 => found.push(part[0]),
            Err(error) if is_locked(&error) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => return Err(error),
        }
        sqlx::raw_sql(UNDO_TRY).execute(&mut *connection).await?;
    }
    Ok(found)
}

/// Asks for what is not known, decides, and writes. `None` if somebody else was in between.
async fn decide<'a>(
    connection: &mut PgConnection,
    commits: &[&'a Commit],
    questions: &Questions<'a>,
    mut answers: Answers,
    known: &mut Known,
    store: &Arc<str>,
) -> Result<Option<Vec<Result<(), StoreError>>>, sqlx::Error> {
    if !ask(connection, questions, &mut answers, known).await? {
        return Ok(None);
    }
    let (results, writes) = questions.decide(commits.iter().copied(), &mut answers, store);
    known.learn(questions, &answers);
    Ok(write(connection, &writes).await?.then_some(results))
}

/// Asks what the batch needs to know beyond the actors' rows; false if an event of a younger transaction is there, after
/// which ours cannot come in the feed.
///
/// The rows are locked, so each statement sees what was committed before.
async fn ask(
    connection: &mut PgConnection,
    questions: &Questions<'_>,
    answers: &mut Answers,
    known: &mut Known,
) -> Result<bool, sqlx::Error> {
    let (slots, journals) = known.answer_names(questions, answers);
    let statement = "SELECT w.i, s.epoch, s.sequence \
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (t, k, n, i) \
                     JOIN quark_state s ON s.actor_type = w.t AND s.actor_key = w.k AND s.name = w.n";
    for row in ask_named(connection, statement, slots.iter().map(|index| questions.slots[*index])).await? {
        answers.slots[slots[place(&row)]] = Some(etag(&row, 1));
    }
    // What is known of a journal comes from an earlier transaction on this connection, so that is not younger.
    let statement = "SELECT w.i, j.last, (j.era, j.txid) > \
                     ((SELECT max(began) FROM quark_era), pg_current_xact_id()::text::bigint) \
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (t, k, n, i) \
                     JOIN quark_journal j ON j.actor_type = w.t AND j.actor_key = w.k AND j.journal = w.n";
    let things = journals.iter().map(|index| questions.journals[*index]);
    for row in ask_named(connection, statement, things).await? {
        if row.get(2) {
            return Ok(false);
        }
        answers.journals[journals[place(&row)]] = unsigned(row.get(1));
    }
    let statement = "SELECT w.i \
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (t, k, n, i) \
                     JOIN quark_inbox b ON b.actor_type = w.t AND b.actor_key = w.k AND b.message = w.n";
    let messages = questions.inbox.iter().map(|(actor, message)| (*actor, message.as_str()));
    for row in ask_named(connection, statement, messages).await? {
        answers.inbox[place(&row)] = true;
    }
    Ok(true)
}

/// Asks about things that have an actor and a name.
async fn ask_named<'a>(
    connection: &mut PgConnection,
    statement: &'static str,
    things: impl ExactSizeIterator<Item = (&'a Address, &'a str)>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    if things.len() == 0 {
        return Ok(Vec::new());
    }
    let (actors, names): (Vec<&Address>, Vec<&str>) = things.unzip();
    let (types, keys) = addresses(actors);
    sqlx::query(statement).bind(types).bind(keys).bind(names).fetch_all(connection).await
}

/// Which question a row answers. They are numbered from 1.
fn place(row: &PgRow) -> usize {
    usize::try_from(row.get::<i64, _>(0) - 1).unwrap_or(usize::MAX)
}

/// Writes the rows; false if another transaction has made an actor that was not there when we asked, or changed one that
/// we had not asked about.
async fn write(connection: &mut PgConnection, writes: &Writes<'_>) -> Result<bool, sqlx::Error> {
    if !write_actors(connection, writes).await? {
        return Ok(false);
    }
    let (new, old): (Vec<&SlotRow<'_>>, Vec<&SlotRow<'_>>) = writes.slots.iter().partition(|row| row.is_new);
    for (rows, statement) in [(new, INSERT_STATES), (old, UPDATE_STATES)] {
        if rows.is_empty() {
            continue;
        }
        let (types, keys) = addresses(rows.iter().map(|row| row.actor));
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let (epochs, sequences) = etags(rows.iter().map(|row| (row.etag.epoch, row.etag.sequence)));
        let values = Values::of(rows.iter().map(|row| row.value));
        let query = sqlx::query(statement).bind(types).bind(keys).bind(names).bind(epochs).bind(sequences);
        let query = query.bind(values.formats).bind(values.versions).bind(values.texts).bind(values.bytes);
        query.execute(&mut *connection).await?;
    }
    if !writes.cleared.is_empty() {
        let (actors, names): (Vec<&Address>, Vec<&str>) = writes.cleared.iter().copied().unzip();
        let (types, keys) = addresses(actors);
        let query = sqlx::query(
            "DELETE FROM quark_state s USING unnest($1::text[], $2::text[], $3::text[]) AS w (t, k, n) \
             WHERE s.actor_type = w.t AND s.actor_key = w.k AND s.name = w.n",
        );
        query.bind(types).bind(keys).bind(names).execute(&mut *connection).await?;
    }
    write_journals(connection, writes).await?;
    write_messages(connection, writes).await?;
    Ok(true)
}

async fn write_actors(connection: &mut PgConnection, writes: &Writes<'_>) -> Result<bool, sqlx::Error> {
    let (mut new, old): (Vec<&ActorRow<'_>>, Vec<&ActorRow<'_>>) =
        writes.actors.iter().partition(|row| row.before.is_none());
    let arrays = |rows: &[&ActorRow<'_>]| etags(rows.iter().map(|row| (row.last.epoch, row.last.sequence)));
    if !old.is_empty() {
        let (types, keys) = addresses(old.iter().map(|row| row.actor));
        let (epochs, sequences) = arrays(&old);
        let (seen_epochs, seen_sequences) =
            etags(old.iter().filter_map(|row| row.before).map(|last| (last.epoch, last.sequence)));
        let query = sqlx::query(
            "UPDATE quark_actor a SET epoch = w.e, sequence = w.s \
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) \
             AS w (t, k, e, s, seen_e, seen_s) \
             WHERE a.actor_type = w.t AND a.actor_key = w.k AND a.epoch = w.seen_e AND a.sequence = w.seen_s",
        );
        let query = query.bind(types).bind(keys).bind(epochs).bind(sequences);
        let done = query.bind(seen_epochs).bind(seen_sequences).execute(&mut *connection).await?;
        if done.rows_affected() != old.len() as u64 {
            return Ok(false);
        }
    }
    if !new.is_empty() {
        // In the order of the keys, so that two batches never wait for each other in a circle.
        new.sort_by_key(|row| row.actor);
        let (types, keys) = addresses(new.iter().map(|row| row.actor));
        let (epochs, sequences) = arrays(&new);
        let query = sqlx::query(INSERT_ACTORS).bind(types).bind(keys).bind(epochs).bind(sequences);
        let done = query.execute(&mut *connection).await?;
        return Ok(done.rows_affected() == new.len() as u64);
    }
    Ok(true)
}

async fn write_journals(connection: &mut PgConnection, writes: &Writes<'_>) -> Result<(), sqlx::Error> {
    if writes.journals.is_empty() {
        return Ok(());
    }
    let rows = &writes.journals;
    let (types, keys) = addresses(rows.iter().map(|row| row.actor));
    let names: Vec<&str> = rows.iter().map(|row| row.journal).collect();
    let lasts: Vec<i64> = rows.iter().map(|row| int(row.last)).collect();
    let snapshots: Vec<Option<i64>> = rows.iter().map(|row| row.snapshot.map(|(at, _)| int(at))).collect();
    let with_snapshot = || rows.iter().map(|row| row.snapshot.map(|(_, value)| value));
    let formats: Vec<Option<&str>> =
        with_snapshot().map(|value| value.map(|value| value.format.as_ref())).collect();
    let versions: Vec<Option<i64>> =
        with_snapshot().map(|value| value.map(|value| i64::from(value.version))).collect();
    let texts: Vec<Option<&str>> = with_snapshot().map(|value| value.and_then(crate::sql::as_text)).collect();
    let bytes: Vec<Option<&[u8]>> = with_snapshot()
        .map(|value| {
            value.filter(|value| crate::sql::as_text(value).is_none()).map(|value| value.bytes.as_slice())
        })
        .collect();
    // A new snapshot takes the place of the old one as a whole: of text and bytes one is null.
    let query = sqlx::query(
        "INSERT INTO quark_journal AS j (actor_type, actor_key, journal, last, snapshot_sequence, \
         snapshot_format, snapshot_version, snapshot_text, snapshot, era, txid) \
         SELECT *, (SELECT max(began) FROM quark_era), pg_current_xact_id()::text::bigint FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], \
         $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bytea[]) \
         ON CONFLICT (actor_type, actor_key, journal) DO UPDATE SET last = excluded.last, era = excluded.era, \
         txid = excluded.txid, \
         (snapshot_sequence, snapshot_format, snapshot_version, snapshot_text, snapshot) = ( \
         SELECT CASE WHEN n THEN excluded.snapshot_sequence ELSE j.snapshot_sequence END, \
         CASE WHEN n THEN excluded.snapshot_format ELSE j.snapshot_format END, \
         CASE WHEN n THEN excluded.snapshot_version ELSE j.snapshot_version END, \
         CASE WHEN n THEN excluded.snapshot_text ELSE j.snapshot_text END, \
         CASE WHEN n THEN excluded.snapshot ELSE j.snapshot END \
         FROM (SELECT excluded.snapshot_sequence IS NOT NULL AS n) AS new)",
    );
    let query = query.bind(types).bind(keys).bind(names).bind(lasts).bind(snapshots);
    query.bind(formats).bind(versions).bind(texts).bind(bytes).execute(&mut *connection).await?;

    let rows = &writes.events;
    if rows.is_empty() {
        return Ok(());
    }
    let (types, keys) = addresses(rows.iter().map(|row| row.actor));
    let names: Vec<&str> = rows.iter().map(|row| row.journal).collect();
    let sequences: Vec<i64> = rows.iter().map(|row| int(row.sequence)).collect();
    let times: Vec<i64> = rows.iter().map(|row| time(row.time)).collect();
    let values = Values::of(rows.iter().map(|row| row.value));
    let query = sqlx::query(
        "INSERT INTO quark_event \
         (era, actor_type, actor_key, journal, sequence, time, format, version, value_text, value) \
         SELECT (SELECT max(began) FROM quark_era), t, k, j, s, at, f, v, x, b FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], \
         $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bytea[]) \
         WITH ORDINALITY AS w (t, k, j, s, at, f, v, x, b, i) ORDER BY i",
    );
    let query = query.bind(types).bind(keys).bind(names).bind(sequences).bind(times);
    let query = query.bind(values.formats).bind(values.versions).bind(values.texts).bind(values.bytes);
    query.execute(connection).await.map(drop)
}

async fn write_messages(connection: &mut PgConnection, writes: &Writes<'_>) -> Result<(), sqlx::Error> {
    if !writes.outbox.is_empty() {
        let rows = &writes.outbox;
        let (types, keys) = addresses(rows.iter().map(|row| row.from));
        let (epochs, sequences) = etags(rows.iter().map(|row| (row.commit.epoch, row.commit.sequence)));
        let indices: Vec<i64> = rows.iter().map(|row| i64::from(row.index)).collect();
        let times: Vec<i64> = rows.iter().map(|row| time(row.time)).collect();
        let (to_types, to_keys) = addresses(rows.iter().map(|row| &row.message.to));
        let methods: Vec<&str> = rows.iter().map(|row| row.message.method.as_ref()).collect();
        let values = Values::of(rows.iter().map(|row| &row.message.body));
        let query = sqlx::query(
            "INSERT INTO quark_outbox (era, actor_type, actor_key, epoch, sequence, message_index, time, \
             to_type, to_key, method, format, version, value_text, value) \
             SELECT (SELECT max(began) FROM quark_era), t, k, e, s, m, at, tt, tk, d, f, v, x, b FROM unnest($1::text[], $2::text[], $3::bigint[], \
             $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], \
             $11::bigint[], $12::text[], $13::bytea[]) \
             WITH ORDINALITY AS w (t, k, e, s, m, at, tt, tk, d, f, v, x, b, i) ORDER BY i",
        );
        let query = query.bind(types).bind(keys).bind(epochs).bind(sequences).bind(indices).bind(times);
        let query = query.bind(to_types).bind(to_keys).bind(methods);
        let query = query.bind(values.formats).bind(values.versions).bind(values.texts).bind(values.bytes);
        query.execute(&mut *connection).await?;
    }
    if !writes.inbox.is_empty() {
        let (types, keys) = addresses(writes.inbox.iter().map(|(actor, _, _)| *actor));
        let messages: Vec<&str> = writes.inbox.iter().map(|(_, message, _)| message.as_str()).collect();
        let times: Vec<i64> = writes.inbox.iter().map(|(_, _, at)| time(*at)).collect();
        let query = sqlx::query(
            "INSERT INTO quark_inbox (actor_type, actor_key, message, time) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])",
        );
        query.bind(types).bind(keys).bind(messages).bind(times).execute(connection).await?;
    }
    Ok(())
}

fn etags(etags: impl Iterator<Item = (Epoch, u64)>) -> (Vec<i64>, Vec<i64>) {
    etags.map(|(epoch, sequence)| (int(epoch.0), int(sequence))).unzip()
}
