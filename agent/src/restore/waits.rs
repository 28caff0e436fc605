//! What a server that replays is doing: whether those of its threads that apply work, wait or have nothing to do, and who holds what they
//! wait for.
//!
//! A thread that works is never said to wait, however long its statement takes: only states that say so count as waiting. What becomes of
//! an applier that stands still is decided elsewhere ([`super::follow`]).

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::Flavour;

use crate::wire::event::has_word;
use crate::wire::{Connection, Row, WireError};

/// So many holders, or sessions that may be some, are told of each waiter.
const HOLDERS_MAX: usize = 5;

/// What a thread does for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It applies transactions that it is given.
    Worker,
    /// It hands them out, or applies them itself where there are no workers.
    Coordinator,
    /// Nothing.
    Other,
}

impl Part {
    /// By MariaDB's `COMMAND` or MySQL's name of the thread.
    fn of(name: &str) -> Self {
        match name.rsplit('/').next().unwrap_or_default() {
            "Slave_worker" | "replica_worker" | "slave_worker" => Self::Worker,
            "Slave_SQL" | "replica_sql" | "slave_sql" => Self::Coordinator,
            _ => Self::Other,
        }
    }
}

/// A session of the server, or a thread of its own that has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    id: u64,
    part: Part,
    who: String,
    seconds: u64,
    state: String,
    statement: String,
}

impl Session {
    fn of(row: &Row) -> Result<Self, WireError> {
        Ok(Self {
            id: row.u64("id")?,
            part: Part::of(&row.str("part")?),
            who: row.str("who")?,
            seconds: row.str("seconds")?.parse().unwrap_or(0),
            state: row.str("state")?,
            statement: row.str("statement")?,
        })
    }

    fn is_idle(&self) -> bool {
        // MariaDB's worker; MySQL's; the one that reads, without anything to read.
        ["Waiting for work from", "Waiting for an event from Coordinator"]
            .iter()
            .any(|idle| self.state.starts_with(idle))
            || self.state.contains("has read all relay log")
    }

    /// Whether it waits for a lock, or for its turn to commit.
    fn waits(&self) -> bool {
        const FOR: [&str; 9] = [
            "metadata lock",
            "table level lock",
            "global read lock",
            "backup lock",
            "commit lock",
            "table flush",
            "prior transaction",
            "preceding transaction",
            "dependent transaction",
        ];
        self.state.starts_with("Waiting for") && FOR.iter().any(|what| self.state.contains(what))
    }

    /// Whether it waits for others that commit before it.
    fn waits_for_its_turn(&self) -> bool {
        [
            "prior transaction",
            "preceding transaction",
            "dependent transaction",
        ]
        .iter()
        .any(|what| self.state.contains(what))
    }

    /// For people.
    fn told(&self, waits_for_row: bool) -> String {
        let state = match waits_for_row {
            true => "Waiting for a lock on a row",
            false => self.state.as_str(),
        };
        match self.statement.is_empty() {
            true => format!("thread {} ({state})", self.id),
            false => format!("thread {} ({state}: {})", self.id, one_line(&self.statement)),
        }
    }

    /// A session that is no part of the replay, for people.
    fn told_as_holder(&self) -> String {
        let doing = match self.statement.is_empty() {
            true => "nothing".to_owned(),
            false => one_line(&self.statement),
        };
        format!(
            "thread {} of {}, which does {doing} for {} s",
            self.id, self.who, self.seconds
        )
    }
}

/// The beginning of a statement, in one line.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(150).collect()
}

/// That one thread holds what another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hold {
    waiter: u64,
    holder: u64,
    object: String,
}

/// The server's sessions at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    sessions: Vec<Session>,
    /// Those that wait for a lock on a row.
    on_rows: BTreeSet<u64>,
    /// How many rows each open transaction has changed, by its session.
    in_transaction: BTreeMap<u64, u64>,
}

impl Sight {
    /// Looks.
    pub(super) async fn take(flavour: Flavour, control: &mut Connection) -> Result<Self, WireError> {
        let sessions = match flavour {
            Flavour::MariaDb => {
                "SELECT ID AS id, COMMAND AS part, CONCAT(USER, '@', HOST) AS who, COALESCE(TIME, 0) AS seconds, \
                 COALESCE(STATE, '') AS state, COALESCE(LEFT(INFO, 500), '') AS statement FROM information_schema.PROCESSLIST"
            }
            Flavour::MySql => {
                "SELECT PROCESSLIST_ID AS id, NAME AS part, CONCAT(COALESCE(PROCESSLIST_USER, ''), '@', COALESCE(PROCESSLIST_HOST, '')) AS who, \
                 COALESCE(PROCESSLIST_TIME, 0) AS seconds, COALESCE(PROCESSLIST_STATE, '') AS state, \
                 COALESCE(LEFT(PROCESSLIST_INFO, 500), '') AS statement FROM performance_schema.threads WHERE PROCESSLIST_ID IS NOT NULL"
            }
        };
        let rows = control.query(sessions).await?;
        let sessions: Vec<Session> = rows.iter().map(Session::of).collect::<Result<_, _>>()?;
        let sessions = sessions
            .into_iter()
            .filter(|session| session.id != control.connection_id());
        let sessions = sessions.collect();
        let transactions = "SELECT trx_mysql_thread_id AS id, trx_state AS state, trx_rows_modified AS changed FROM information_schema.INNODB_TRX";
        let (mut on_rows, mut in_transaction) = (BTreeSet::new(), BTreeMap::new());
        for row in &control.query(transactions).await? {
            let id = row.u64("id")?;
            in_transaction.insert(id, row.u64("changed")?);
            if row.str("state")? == "LOCK WAIT" {
                on_rows.insert(id);
            }
        }
        Ok(Self {
            sessions,
            on_rows,
            in_transaction,
        })
    }

    /// The threads that apply: the workers, or where there are none the one that reads.
    fn appliers(&self) -> impl Iterator<Item = &Session> {
        let has_workers = self.sessions.iter().any(|one| one.part == Part::Worker);
        let part = match has_workers {
            true => Part::Worker,
            false => Part::Coordinator,
        };
        self.sessions.iter().filter(move |one| one.part == part)
    }

    fn is_waiting(&self, session: &Session) -> bool {
        session.waits() || self.on_rows.contains(&session.id)
    }

    /// The numbers of the threads that apply and wait.
    pub(super) fn waiting(&self) -> Vec<u64> {
        let waiting = self.appliers().filter(|one| self.is_waiting(one));
        waiting.map(|one| one.id).collect()
    }

    /// Those of them that wait for a lock, not for their turn to commit; all that wait where none does.
    ///
    /// Whoever waits for its turn is told by its server when the one before it fails. MariaDB may have committed one that is ended while it
    /// waits for that, and forget that it has.
    pub(super) fn to_be_ended(&self) -> Vec<u64> {
        let waiting = self.appliers().filter(|one| self.is_waiting(one));
        let for_locks: Vec<u64> = waiting
            .filter(|one| !one.waits_for_its_turn() || self.on_rows.contains(&one.id))
            .map(|one| one.id)
            .collect();
        match for_locks.is_empty() {
            true => self.waiting(),
            false => for_locks,
        }
    }

    /// Whether some of those that apply wait, and none of them works.
    pub(super) fn only_waits(&self) -> bool {
        !self.waiting().is_empty() && !self.works()
    }

    /// Those that apply and work.
    fn working(&self) -> impl Iterator<Item = &Session> {
        self.appliers()
            .filter(|one| !one.is_idle() && !self.is_waiting(one))
    }

    /// Whether one of those that apply works.
    pub(super) fn works(&self) -> bool {
        self.working().next().is_some()
    }

    /// The numbers of those that apply and look for a row that they are to change.
    pub(super) fn searching(&self) -> Vec<u64> {
        let searching = self.working().filter(|one| one.state.contains("find_row"));
        searching.map(|one| one.id).collect()
    }

    /// How many rows the transactions of those that work have changed so far; the largest of them.
    pub(super) fn rows_changed(&self) -> u64 {
        let changed = self.working().filter_map(|one| self.in_transaction.get(&one.id));
        changed.copied().max().unwrap_or(0)
    }

    /// Who waits for whom, for people.
    pub(super) async fn explain(&self, flavour: Flavour, control: &mut Connection) -> String {
        let mut holds = holds(flavour, control).await;
        if flavour == Flavour::MariaDb {
            holds.extend(self.held_definitions(control).await);
        }
        let waiting: Vec<&Session> = self.appliers().filter(|one| self.is_waiting(one)).collect();
        let mut told: Vec<String> = waiting.iter().map(|waiter| self.told(waiter, &holds)).collect();
        let is_known = |hold: &Hold| waiting.iter().any(|waiter| waiter.id == hold.waiter);
        let others = self.others();
        if !holds.iter().any(is_known) && !others.is_empty() {
            told.push(format!("in a transaction: {}", others.join(", ")));
        }
        told.join("; ")
    }

    /// Sessions that are no part of the replay and in a transaction, for people.
    fn others(&self) -> Vec<String> {
        let may_hold = |one: &&Session| one.part == Part::Other && self.in_transaction.contains_key(&one.id);
        let others = self.sessions.iter().filter(may_hold).take(HOLDERS_MAX);
        others.map(Session::told_as_holder).collect()
    }

    fn told(&self, waiter: &Session, holds: &[Hold]) -> String {
        let mut text = waiter.told(self.on_rows.contains(&waiter.id));
        let of_waiter: BTreeSet<(u64, &str)> = holds
            .iter()
            .filter(|hold| hold.waiter == waiter.id)
            .map(|hold| (hold.holder, hold.object.as_str()))
            .collect();
        for (holder, object) in of_waiter.into_iter().take(HOLDERS_MAX) {
            let holder = match self.sessions.iter().find(|one| one.id == holder) {
                Some(session) if session.part == Part::Other => session.told_as_holder(),
                _ => format!("thread {holder}"),
            };
            text.push_str(&format!(", {object} is held by {holder}"));
        }
        text
    }

    /// MariaDB says who holds definitions of tables only with a plugin, and never who waits for which: a statement names its tables.
    async fn held_definitions(&self, control: &mut Connection) -> Vec<Hold> {
        let held = "SELECT THREAD_ID AS holder, TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.METADATA_LOCK_INFO \
                    WHERE LOCK_TYPE = 'Table metadata lock'";
        let Ok(rows) = control.query(held).await else {
            return Vec::new();
        };
        let mut holds = Vec::new();
        let waiters = self.appliers().filter(|one| one.state.contains("metadata lock"));
        for waiter in waiters {
            for row in &rows {
                let (Ok(holder), Ok(schema), Ok(table)) = (row.u64("holder"), row.str("s"), row.str("t"))
                else {
                    continue;
                };
                let is_applier = self.appliers().any(|one| one.id == holder);
                let is_named = match waiter.statement.is_empty() {
                    true => !is_applier,
                    false => has_word(&waiter.statement, &table),
                };
                if holder != waiter.id && is_named {
                    holds.push(Hold {
                        waiter: waiter.id,
                        holder,
                        object: format!("{schema}.{table}"),
                    });
                }
            }
        }
        holds
    }
}

/// The sessions of a server, but one, that are in a transaction, for people; `None` where there are none, or the account may not see them.
pub(super) async fn in_transaction(connection: &mut Connection, but: u64) -> Option<String> {
    let mut sight = Sight::take(connection.flavour(), connection).await.ok()?;
    sight.in_transaction.remove(&but);
    let others = sight.others();
    (!others.is_empty()).then(|| others.join(", "))
}

/// Who holds what, as far as the server says it.
async fn holds(flavour: Flavour, control: &mut Connection) -> Vec<Hold> {
    let queries: &[&str] = match flavour {
        Flavour::MariaDb => &[
            "SELECT r.trx_mysql_thread_id AS waiter, b.trx_mysql_thread_id AS holder, l.lock_table AS object \
             FROM information_schema.INNODB_LOCK_WAITS AS w \
             JOIN information_schema.INNODB_TRX AS r ON r.trx_id = w.requesting_trx_id \
             JOIN information_schema.INNODB_TRX AS b ON b.trx_id = w.blocking_trx_id \
             JOIN information_schema.INNODB_LOCKS AS l ON l.lock_id = w.requested_lock_id",
        ],
        Flavour::MySql => &[
            "SELECT r.PROCESSLIST_ID AS waiter, b.PROCESSLIST_ID AS holder, CONCAT(l.OBJECT_SCHEMA, '.', l.OBJECT_NAME) AS object \
             FROM performance_schema.data_lock_waits AS w \
             JOIN performance_schema.threads AS r ON r.THREAD_ID = w.REQUESTING_THREAD_ID \
             JOIN performance_schema.threads AS b ON b.THREAD_ID = w.BLOCKING_THREAD_ID \
             JOIN performance_schema.data_locks AS l ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID",
            "SELECT r.PROCESSLIST_ID AS waiter, b.PROCESSLIST_ID AS holder, CONCAT_WS('.', p.OBJECT_SCHEMA, p.OBJECT_NAME) AS object \
             FROM performance_schema.metadata_locks AS p JOIN performance_schema.metadata_locks AS g \
             ON g.OBJECT_TYPE = p.OBJECT_TYPE AND g.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA AND g.OBJECT_NAME <=> p.OBJECT_NAME \
             AND g.LOCK_STATUS = 'GRANTED' AND g.OWNER_THREAD_ID <> p.OWNER_THREAD_ID \
             JOIN performance_schema.threads AS r ON r.THREAD_ID = p.OWNER_THREAD_ID \
             JOIN performance_schema.threads AS b ON b.THREAD_ID = g.OWNER_THREAD_ID WHERE p.LOCK_STATUS = 'PENDING'",
        ],
    };
    let mut holds = Vec::new();
    for query in queries {
        // What the server does not tell, or not to this account, is not told.
        let Ok(rows) = control.query(query).await else {
            continue;
        };
        holds.extend(rows.iter().filter_map(|row| {
            Some(Hold {
                waiter: row.u64("waiter").ok()?,
                holder: row.u64("holder").ok()?,
                object: row.str("object").ok()?.replace('`', ""),
            })
        }));
    }
    holds
}
