-- What belongs to actors. Every change of a row of an actor comes with a change of its row in quark_actor.

CREATE TABLE quark_actor (
    actor_type TEXT    NOT NULL,
    actor_key  TEXT    NOT NULL,
    -- The last commit: the epoch of the activation that made it, and its number there.
    epoch      INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    PRIMARY KEY (actor_type, actor_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE quark_state (
    actor_type TEXT    NOT NULL,
    actor_key  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    -- Which commit wrote it.
    epoch      INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    format     TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    -- Text if the format is JSON, else a blob.
    value      ANY     NOT NULL,
    PRIMARY KEY (actor_type, actor_key, name)
) STRICT;

CREATE TABLE quark_journal (
    actor_type        TEXT    NOT NULL,
    actor_key         TEXT    NOT NULL,
    journal           TEXT    NOT NULL,
    last              INTEGER NOT NULL,
    snapshot_sequence INTEGER,
    snapshot_format   TEXT,
    snapshot_version  INTEGER,
    snapshot          ANY,
    PRIMARY KEY (actor_type, actor_key, journal)
) STRICT;

CREATE TABLE quark_event (
    -- The place in the feed. There is one writer at a time, so places grow in the order of the commits.
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    actor_type TEXT    NOT NULL,
    actor_key  TEXT    NOT NULL,
    journal    TEXT    NOT NULL,
    sequence   INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    format     TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    value      ANY     NOT NULL,
    UNIQUE (actor_type, actor_key, journal, sequence)
) STRICT;

CREATE INDEX quark_event_feed ON quark_event (actor_type, journal, position);

CREATE TABLE quark_outbox (
    position      INTEGER PRIMARY KEY AUTOINCREMENT,
    actor_type    TEXT    NOT NULL,
    actor_key     TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    sequence      INTEGER NOT NULL,
    message_index INTEGER NOT NULL,
    time          INTEGER NOT NULL,
    to_type       TEXT    NOT NULL,
    to_key        TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    format        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    value         ANY     NOT NULL,
    UNIQUE (actor_type, actor_key, epoch, sequence, message_index)
) STRICT;

CREATE TABLE quark_inbox (
    actor_type TEXT    NOT NULL,
    actor_key  TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    time       INTEGER NOT NULL,
    PRIMARY KEY (actor_type, actor_key, message)
) STRICT, WITHOUT ROWID;

CREATE INDEX quark_inbox_time ON quark_inbox (time);

CREATE TABLE quark_reminder (
    actor_type TEXT    NOT NULL,
    actor_key  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    due        INTEGER NOT NULL,
    schedule   TEXT    NOT NULL,
    -- The point of the ring less 2^63, so that it sorts as a signed number.
    ring       INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    PRIMARY KEY (actor_type, actor_key, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX quark_reminder_due ON quark_reminder (due, ring);

CREATE TABLE quark_stream (
    namespace TEXT    PRIMARY KEY NOT NULL,
    -- The place of the next item.
    next      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE quark_stream_item (
    namespace TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    time      INTEGER NOT NULL,
    format    TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    value     ANY     NOT NULL,
    PRIMARY KEY (namespace, position)
) STRICT;

CREATE TABLE quark_stream_group (
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    -- The first place that the group was not given.
    next      INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- What a group was given and has not acknowledged.
CREATE TABLE quark_stream_pending (
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    given     INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    PRIMARY KEY (namespace, name, position)
) STRICT, WITHOUT ROWID;
