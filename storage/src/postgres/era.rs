//! Since when the database counts its transactions as it does now.
//!
//! A feed's order stands on the numbers of transactions. They belong to one server: in another one, where a dump was
//! restored, they begin anew, and after a failover some of them may be given a second time. So events also carry the
//! era in which they were written, which is the moment when the first of us connected to that server; its numbers count
//! within it. Positions in a feed keep their meaning, since what comes later has a later era.

use sqlx::PgConnection;

use super::error::is_read_only;

/// Whether the present server is another one than that of the latest era. It is told by its cluster's identifier, and by
/// the timeline, which changes with every failover and every restore to a point in time. A standby says no.
const IS_ANOTHER: &str = "SELECT EXISTS (SELECT FROM (SELECT (pg_control_system()).system_identifier AS c, \
     substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS t WHERE NOT pg_is_in_recovery()) AS here \
     LEFT JOIN LATERAL (SELECT cluster, timeline FROM quark_era ORDER BY began DESC LIMIT 1) AS latest ON true \
     WHERE (cluster, timeline) IS DISTINCT FROM (c, t))";

/// Begins an era unless somebody else has meanwhile. Two for one server would have an order that its transactions lack,
/// so nobody else looks until this is done. Should its clock stand behind that of the last server, it goes on from
/// there.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     LOCK TABLE quark_era IN SHARE ROW EXCLUSIVE MODE; \
     INSERT INTO quark_era (began, cluster, timeline) \
     SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, coalesce(latest.began, 0) + 1), c, t \
     FROM (SELECT (pg_control_system()).system_identifier AS c, \
     substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS t) AS here \
     LEFT JOIN LATERAL (SELECT * FROM quark_era ORDER BY began DESC LIMIT 1) AS latest ON true \
     WHERE (cluster, timeline) IS DISTINCT FROM (c, t); \
     COMMIT";

/// Every connection does this before it is used for anything else, and again whenever commits begin on one that has not
/// just written some, since a standby that is promoted keeps its connections. So no event is written in an era that has
/// ended. Somebody who may only read reads what there is.
pub(super) async fn settle(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if !sqlx::query_scalar(IS_ANOTHER).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    match sqlx::raw_sql(BEGIN).execute(&mut *connection).await {
        Err(error) if is_read_only(&error) => sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop),
        other => other.map(drop),
    }
}
