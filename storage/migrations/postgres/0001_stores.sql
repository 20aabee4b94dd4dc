-- What belongs to actors. Every change of a row of an actor is made under the lock of its row in quark_actor.
-- A value is text if its format is JSON, else bytes: exactly one of two columns.

CREATE TABLE quark_actor (
    actor_type text   COLLATE "C" NOT NULL,
    actor_key  text   COLLATE "C" NOT NULL,
    -- The last commit: the epoch of the activation that made it, and its number there.
    epoch      bigint NOT NULL,
    sequence   bigint NOT NULL,
    PRIMARY KEY (actor_type, actor_key)
    -- Room on each page, so that a new version of a row stays beside the old one and the index is left alone.
) WITH (fillfactor = 70);

CREATE TABLE quark_state (
    actor_type text   COLLATE "C" NOT NULL,
    actor_key  text   COLLATE "C" NOT NULL,
    name       text   COLLATE "C" NOT NULL,
    -- Which commit wrote it.
    epoch      bigint NOT NULL,
    sequence   bigint NOT NULL,
    format     text   NOT NULL,
    version    bigint NOT NULL,
    value_text text,
    value      bytea,
    PRIMARY KEY (actor_type, actor_key, name)
) WITH (fillfactor = 70);

-- Numbers of transactions belong to one server. When the tables come to another one, a new era begins.
CREATE TABLE quark_era (
    -- In milliseconds since 1970, and later than all before.
    began    bigint NOT NULL PRIMARY KEY,
    -- Which server's it is: the identifier of its cluster, and its timeline.
    cluster  bigint NOT NULL,
    timeline text   NOT NULL
);

CREATE TABLE quark_journal (
    actor_type        text   COLLATE "C" NOT NULL,
    actor_key         text   COLLATE "C" NOT NULL,
    journal           text   COLLATE "C" NOT NULL,
    last              bigint NOT NULL,
    -- The transaction of the last event: see quark_event.
    era               bigint NOT NULL,
    txid              bigint NOT NULL,
    snapshot_sequence bigint,
    snapshot_format   text,
    snapshot_version  bigint,
    snapshot_text     text,
    snapshot          bytea,
    PRIMARY KEY (actor_type, actor_key, journal)
) WITH (fillfactor = 70);

CREATE TABLE quark_event (
    -- The place in the feed is (era, txid, position). A reader stops before the oldest transaction that is still open,
    -- so none can appear behind it; and an event's transaction is never older than that of the event before it.
    era        bigint NOT NULL,
    txid       bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    position   bigint GENERATED ALWAYS AS IDENTITY,
    actor_type text   COLLATE "C" NOT NULL,
    actor_key  text   COLLATE "C" NOT NULL,
    journal    text   COLLATE "C" NOT NULL,
    sequence   bigint NOT NULL,
    time       bigint NOT NULL,
    format     text   NOT NULL,
    version    bigint NOT NULL,
    value_text text,
    value      bytea,
    PRIMARY KEY (actor_type, actor_key, journal, sequence)
);

CREATE INDEX quark_event_feed ON quark_event (actor_type, journal, era, txid, position);

CREATE TABLE quark_outbox (
    -- The place is (era, txid, position), as in quark_event. An actor's next message is sent once the one before it is in,
    -- so its transaction is never older.
    era           bigint  NOT NULL,
    txid          bigint  NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    position      bigint  GENERATED ALWAYS AS IDENTITY,
    actor_type    text    COLLATE "C" NOT NULL,
    actor_key     text    COLLATE "C" NOT NULL,
    epoch         bigint  NOT NULL,
    sequence      bigint  NOT NULL,
    message_index bigint  NOT NULL,
    time          bigint  NOT NULL,
    to_type       text    NOT NULL,
    to_key        text    NOT NULL,
    method        text    NOT NULL,
    format        text    NOT NULL,
    version       bigint  NOT NULL,
    value_text    text,
    value         bytea,
    PRIMARY KEY (actor_type, actor_key, epoch, sequence, message_index)
);

CREATE UNIQUE INDEX quark_outbox_place ON quark_outbox (era, txid, position);

CREATE TABLE quark_inbox (
    actor_type text   COLLATE "C" NOT NULL,
    actor_key  text   COLLATE "C" NOT NULL,
    message    text   COLLATE "C" NOT NULL,
    time       bigint NOT NULL,
    PRIMARY KEY (actor_type, actor_key, message)
);

CREATE INDEX quark_inbox_time ON quark_inbox (time);

CREATE TABLE quark_reminder (
    actor_type text   COLLATE "C" NOT NULL,
    actor_key  text   COLLATE "C" NOT NULL,
    name       text   COLLATE "C" NOT NULL,
    due        bigint NOT NULL,
    schedule   text   NOT NULL,
    -- The point of the ring less 2^63, so that it sorts as a signed number.
    ring       bigint NOT NULL,
    version    bigint NOT NULL,
    PRIMARY KEY (actor_type, actor_key, name)
);

CREATE INDEX quark_reminder_due ON quark_reminder (due, ring);
