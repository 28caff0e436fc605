//! The session that statements and rows are applied in: each setting is set when it changes.
//!
//! Settings that the account may not set are refused only where they would have to be set to something else.

use std::collections::{BTreeMap, HashMap};

use holdfast_proto::Flavour;

use crate::server::identifiers::{is_bare_word, quote_text};
use crate::server::session::Settings;
use crate::wire::event::{
    EventHeader, ROWS_WITHOUT_CONSTRAINTS, ROWS_WITHOUT_FOREIGN_KEYS, SessionSettings, session_flags,
};
use crate::wire::known_session::SQL_MODE;
use crate::wire::{Connection, WireError};

/// Access denied: a privilege is needed.
const ACCESS_DENIED: u16 = 1227;

/// Of sql_mode: DATA DIRECTORY and INDEX DIRECTORY are passed over.
const NO_DIR_IN_CREATE: u64 = 1 << 7;
/// Settings that only allow more: what needs them fails by itself where they cannot be set.
const EASES: [&str; 3] = [
    "sql_require_primary_key",
    "restrict_fk_on_non_standard_key",
    "innodb_strict_mode",
];

/// See [`SessionSettings::collations`].
const DEFAULT_COLLATIONS: &str = "character_set_collations";

/// A setting with the expression it is to be set to.
type Wanted = (&'static str, String);

/// See the module.
pub(super) struct Session {
    flavour: Flavour,
    /// Which settings the server knows.
    settings: Settings,
    /// The names of collations with their character sets, by number.
    collations: BTreeMap<u16, (String, String)>,
    /// What is set, by setting.
    current: HashMap<&'static str, String>,
}

/// What cannot be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The server refuses it, or is gone.
    #[error("{0}")]
    Server(#[from] WireError),
    /// A statement says something that we cannot set.
    #[error("{0}")]
    Unknown(String),
}

impl Session {
    /// Of a fresh connection.
    pub(super) async fn new(connection: &mut Connection, settings: Settings) -> Result<Self, WireError> {
        let sql = "SELECT ID AS i, COLLATION_NAME AS n, CHARACTER_SET_NAME AS c FROM information_schema.COLLATIONS \
                   WHERE ID IS NOT NULL AND CHARACTER_SET_NAME IS NOT NULL";
        // MariaDB has collations for several character sets, whose numbers stand elsewhere.
        let more = "SELECT ID AS i, FULL_COLLATION_NAME AS n, CHARACTER_SET_NAME AS c \
                    FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY";
        let mut collations = BTreeMap::new();
        for (sql, is_needed) in [(sql, true), (more, false)] {
            let rows = match connection.query(sql).await {
                Err(error) if !is_needed && error.server_code().is_some() => continue,
                rows => rows?,
            };
            for row in &rows {
                let number = u16::try_from(row.u64("i")?).unwrap_or(0);
                collations.insert(number, (row.str("n")?, row.str("c")?));
            }
        }
        Ok(Self {
            flavour: connection.flavour(),
            settings,
            collations,
            current: HashMap::new(),
        })
    }

    /// The name of a collation and of its character set.
    pub(super) fn collation(&self, number: u16) -> Result<(&str, &str), SessionError> {
        let found = self.collations.get(&number);
        found
            .map(|(name, set)| (name.as_str(), set.as_str()))
            .filter(|(name, set)| is_bare_word(name) && is_bare_word(set))
            .ok_or_else(|| {
                SessionError::Unknown(format!("the target server has no collation number {number}"))
            })
    }

    /// For rows: values come as they are stored, times in UTC.
    pub(super) async fn for_rows(
        &mut self,
        connection: &mut Connection,
        flags: u16,
        timestamp: Option<&EventHeader>,
    ) -> Result<(), SessionError> {
        let on = |off: u16| if flags & off == 0 { "1" } else { "0" }.to_owned();
        let mut wanted: Vec<Wanted> = vec![
            ("sql_mode", quote_text(SQL_MODE)),
            ("time_zone", "'+00:00'".to_owned()),
            ("character_set_client", "binary".to_owned()),
            ("collation_connection", "binary".to_owned()),
            ("foreign_key_checks", on(ROWS_WITHOUT_FOREIGN_KEYS)),
            ("unique_checks", "1".to_owned()),
        ];
        if self.flavour == Flavour::MariaDb {
            wanted.push(("check_constraint_checks", on(ROWS_WITHOUT_CONSTRAINTS)));
        }
        if let Some(header) = timestamp {
            wanted.push(("timestamp", header.timestamp_seconds.to_string()));
        }
        self.set(connection, wanted).await
    }

    /// For a statement: as the one that ran it on the source.
    pub(super) async fn for_statement(
        &mut self,
        connection: &mut Connection,
        header: &EventHeader,
        of: &SessionSettings<'_>,
        makes_table: bool,
    ) -> Result<(), SessionError> {
        if let Some(code) = of.unknown {
            return Err(SessionError::Unknown(format!(
                "the statement ran under a setting that is not known here, number {code}"
            )));
        }
        let mut wanted = by_flags(self.flavour, of.flags.unwrap_or(0));
        let micros = of.microseconds.unwrap_or(0);
        wanted.push(("timestamp", format!("{}.{micros:06}", header.timestamp_seconds)));
        // Folders of the source's host may be the source's own.
        let without_folders = if makes_table { NO_DIR_IN_CREATE } else { 0 };
        wanted.extend(
            of.sql_mode
                .map(|bits| ("sql_mode", (bits | without_folders).to_string())),
        );
        // A replica does neither, whatever its own sessions do.
        wanted.push(("sql_generate_invisible_primary_key", "0".to_owned()));
        wanted.push(("sql_require_primary_key", "0".to_owned()));
        wanted.push(("restrict_fk_on_non_standard_key", "0".to_owned()));
        wanted.push(("innodb_strict_mode", "0".to_owned()));
        let (increment, offset) = of.auto_increment.unwrap_or((1, 1));
        wanted.push(("auto_increment_increment", increment.to_string()));
        wanted.push(("auto_increment_offset", offset.to_string()));
        if let Some((client, connected, server)) = of.character_sets {
            wanted.push(("character_set_client", self.collation(client)?.1.to_owned()));
            wanted.push(("collation_connection", self.collation(connected)?.0.to_owned()));
            wanted.push(("collation_server", self.collation(server)?.0.to_owned()));
        }
        if let Some(zone) = of.time_zone {
            let zone = std::str::from_utf8(zone)
                .map_err(|_| SessionError::Unknown("the statement's time zone is no text".to_owned()))?;
            wanted.push(("time_zone", quote_text(zone)));
        }
        if self.settings.has(DEFAULT_COLLATIONS) {
            wanted.push((DEFAULT_COLLATIONS, self.default_collations(of.collations)?));
        }
        wanted.push(("lc_time_names", of.time_names.unwrap_or(0).to_string()));
        let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
        wanted.extend(
            of.explicit_timestamp
                .map(|on| ("explicit_defaults_for_timestamp", flag(on))),
        );
        wanted.extend(
            of.table_encryption
                .map(|on| ("default_table_encryption", flag(on))),
        );
        if let Some(number) = of.utf8mb4_collation {
            wanted.push((
                "default_collation_for_utf8mb4",
                self.collation(number)?.0.to_owned(),
            ));
        }
        self.set(connection, wanted).await
    }

    /// MariaDB's default collations of character sets. A server that does not know the setting has those that are its own.
    fn default_collations(&self, stored: &[u8]) -> Result<String, SessionError> {
        let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        let pairs: Vec<String> = stored
            .chunks_exact(4)
            .map(|pair| {
                let (of, to) = (
                    self.collation(number(pair))?.1,
                    self.collation(number(&pair[2..]))?.0,
                );
                Ok(format!("{of}={to}"))
            })
            .collect::<Result<_, SessionError>>()?;
        Ok(quote_text(&pairs.join(",")))
    }

    async fn set(&mut self, connection: &mut Connection, wanted: Vec<Wanted>) -> Result<(), SessionError> {
        let differs = |(name, value): &Wanted| {
            // Settings that only sessions have are in no list of the server's.
            (self.settings.has(name) || *name == "timestamp")
                && self.current.get(name).is_none_or(|current| current != value)
        };
        let changes: Vec<Wanted> = wanted.into_iter().filter(differs).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = changes
            .iter()
            .map(|(name, value)| format!("@@SESSION.{name} = {value}"))
            .collect();
        match connection.execute(format!("SET {}", list.join(", "))).await {
            Err(error) if error.server_code() == Some(ACCESS_DENIED) => {
                for change in &changes {
                    set_or_be(connection, change).await?;
                }
            }
            done => drop(done?),
        }
        self.current.extend(changes);
        Ok(())
    }
}

/// What the bits of a statement's session say.
fn by_flags(flavour: Flavour, flags: u32) -> Vec<Wanted> {
    let is = |bit: u32, on: bool| if (flags & bit != 0) == on { "1" } else { "0" }.to_owned();
    let mut wanted = vec![
        ("foreign_key_checks", is(session_flags::NO_FOREIGN_KEYS, false)),
        ("unique_checks", is(session_flags::NO_UNIQUE, false)),
        ("sql_auto_is_null", is(session_flags::AUTO_IS_NULL, true)),
    ];
    if flavour == Flavour::MariaDb {
        wanted.extend([
            (
                "check_constraint_checks",
                is(session_flags::NO_CHECK_CONSTRAINTS, false),
            ),
            ("sql_if_exists", is(session_flags::IF_EXISTS, true)),
            (
                "system_versioning_insert_history",
                is(session_flags::INSERT_HISTORY, true),
            ),
            (
                "explicit_defaults_for_timestamp",
                is(session_flags::EXPLICIT_TIMESTAMP, true),
            ),
        ]);
    }
    wanted
}

/// Sets a setting, or sees that it has the value already where the account may not set it.
async fn set_or_be(connection: &mut Connection, (name, value): &Wanted) -> Result<(), SessionError> {
    let set = connection
        .execute(format!("SET @@SESSION.{name} = {value}"))
        .await;
    let error = match set {
        Err(error) if error.server_code() == Some(ACCESS_DENIED) => error,
        done => return done.map(drop).map_err(SessionError::from),
    };
    // A bare word is the name of a collation.
    let expression = if value
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic())
    {
        quote_text(value)
    } else {
        value.clone()
    };
    let rows = connection
        .query(format!(
            "SELECT @@SESSION.{name} = {expression} AS same, @@SESSION.{name} AS now"
        ))
        .await?;
    let row = rows.one()?;
    match row.str("same")?.as_str() {
        "1" => Ok(()),
        _ if EASES.contains(name) => Ok(()),
        _ => Err(SessionError::Unknown(format!(
            "the statement ran under {name} = {value}, here it is {}, and the account may not set it: {error}",
            row.str("now")?
        ))),
    }
}
