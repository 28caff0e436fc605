//! Named time zones as a server knows them: `mysql.time_zone` and the tables beside it. Events, and statements that are replayed, may
//! name one; a server that was just made knows none.
//!
//! Carried as they are, numbers included: a restore must not depend on files of its host, and another year's rules would give other
//! times. The zone of a server's host, which it calls SYSTEM, is [`super::zone`]'s.

use std::collections::BTreeMap;

use holdfast_proto::Flavour;
use serde::{Deserialize, Serialize};

use super::capture::{CaptureError, optional, reading};
use super::identifiers::quote_text;
use super::inventory::NotCarried;
use crate::wire::{Connection, Row, Rows};

const WHAT: &str = "time zones";
/// So many bytes of values stand in one statement.
const STATEMENT_BYTES: usize = 256 << 10;

/// What zones have in common that are kept under several numbers, as most are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeZone {
    /// The names of each, by its number.
    pub names: BTreeMap<u32, Vec<String>>,
    /// When its clocks change, in seconds since 1970 UTC, and to which of its types.
    pub transitions: Vec<(i64, u32)>,
    /// Its types.
    pub types: Vec<ZoneType>,
}

/// What the clocks of a zone are at for a time: a number, seconds before UTC, whether it is summer time, an abbreviation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ZoneType(pub u32, pub i32, pub bool, pub String);

type Transitions = Vec<(i64, u32)>;

/// The zones that a server knows, none where its tables are empty.
pub(super) async fn capture(
    connection: &mut Connection,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Vec<TimeZone>, CaptureError> {
    let mut lost = |what: &str| {
        not_carried.push(NotCarried {
            code: "time-zones".to_owned(),
            object: "mysql.time_zone".to_owned(),
            what: what.to_owned(),
        });
    };
    let sql = "SELECT Time_zone_id AS i, Use_leap_seconds AS l FROM mysql.time_zone";
    let Some(numbers) = optional(connection, WHAT, sql).await? else {
        lost(
            "the agent's account may not read which time zones the server knows (SELECT on mysql.*): a new server will know none",
        );
        return Ok(Vec::new());
    };
    let has_leaps = |row: &Row| row.str("l").is_ok_and(|leaps| leaps == "Y");
    if numbers.iter().any(has_leaps) {
        lost("time zones that count leap seconds are not carried: a new server will know none of them");
    }
    let mut names: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in numbers.iter().filter(|row| !has_leaps(row)) {
        names.entry(number(row, "i")?).or_default();
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT Name AS n, Time_zone_id AS i FROM mysql.time_zone_name ORDER BY Name";
    for row in optional(connection, WHAT, sql).await?.iter().flatten() {
        if let Some(names) = names.get_mut(&number(row, "i")?) {
            names.push(row.str("n").map_err(reading(WHAT))?);
        }
    }
    let mut transitions = of_zones(
        connection,
        ("Transition_time, Transition_type_id", "time_zone_transition"),
        |text| {
            let (time, number) = text.split_once(' ')?;
            Some((time.parse().ok()?, number.parse().ok()?))
        },
    )
    .await?;
    let mut types = of_zones(
        connection,
        (
            "Transition_type_id, `Offset`, Is_DST, Abbreviation",
            "time_zone_transition_type",
        ),
        zone_type,
    )
    .await?;
    let mut zones: BTreeMap<(Transitions, Vec<ZoneType>), BTreeMap<u32, Vec<String>>> = BTreeMap::new();
    for (number, names) in names {
        let content = (
            transitions.remove(&number).unwrap_or_default(),
            types.remove(&number).unwrap_or_default(),
        );
        zones.entry(content).or_default().insert(number, names);
    }
    let zone = |((transitions, types), names)| TimeZone {
        names,
        transitions,
        types,
    };
    Ok(zones.into_iter().map(zone).collect())
}

fn number(row: &Row, column: &str) -> Result<u32, CaptureError> {
    let number = row.u64(column).map_err(reading(WHAT))?;
    u32::try_from(number).map_err(|_| CaptureError::Unknown {
        object: WHAT.to_owned(),
        what: format!("a number {number}"),
    })
}

fn zone_type(text: &str) -> Option<ZoneType> {
    let mut parts = text.splitn(4, ' ');
    let mut next = || parts.next();
    Some(ZoneType(
        next()?.parse().ok()?,
        next()?.parse().ok()?,
        next()? == "1",
        next()?.to_owned(),
    ))
}

/// What a table holds for each zone, in order: one row of the answer for each, since there are a hundred thousand in the table.
async fn of_zones<T: Ord>(
    connection: &mut Connection,
    (columns, table): (&str, &str),
    read: impl Fn(&str) -> Option<T>,
) -> Result<BTreeMap<u32, Vec<T>>, CaptureError> {
    let (before, hint) = match connection.flavour() {
        Flavour::MariaDb => ("SET STATEMENT group_concat_max_len = 16777216 FOR ", ""),
        Flavour::MySql => ("", "/*+ SET_VAR(group_concat_max_len = 16777216) */ "),
    };
    let sql = format!(
        "{before}SELECT {hint}Time_zone_id AS i, COUNT(*) AS c, GROUP_CONCAT(CONCAT_WS(' ', {columns}) SEPARATOR ',') AS t \
         FROM mysql.{table} GROUP BY Time_zone_id"
    );
    let rows: Option<Rows> = optional(connection, WHAT, &sql).await?;
    let mut found = BTreeMap::new();
    for row in rows.iter().flatten() {
        let text = row.str("t").map_err(reading(WHAT))?;
        let values: Option<Vec<T>> = text.split(',').map(&read).collect();
        let count = row.u64("c").map_err(reading(WHAT))?;
        let Some(mut values) = values.filter(|values| values.len() as u64 == count) else {
            return Err(CaptureError::Unknown {
                object: format!("mysql.{table}"),
                what: "is not understood".to_owned(),
            });
        };
        values.sort();
        found.insert(number(row, "i")?, values);
    }
    Ok(found)
}

/// The statements that have a new server know these zones; none where there are none.
pub fn statements(zones: &[TimeZone]) -> Vec<String> {
    if zones.is_empty() {
        return Vec::new();
    }
    let (mut numbers, mut names, mut transitions, mut types) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for zone in zones {
        for (number, called) in &zone.names {
            numbers.push(format!("({number},'N')"));
            let named = |name: &String| format!("({},{number})", quote_text(name));
            names.extend(called.iter().map(named));
            let change = |(time, to): &(i64, u32)| format!("({number},{time},{to})");
            transitions.extend(zone.transitions.iter().map(change));
            types.extend(zone.types.iter().map(|ZoneType(kind, offset, is_dst, short)| {
                format!(
                    "({number},{kind},{offset},{},{})",
                    u8::from(*is_dst),
                    quote_text(short)
                )
            }));
        }
    }
    let tables = [
        ("time_zone (Time_zone_id, Use_leap_seconds)", numbers),
        ("time_zone_name (Name, Time_zone_id)", names),
        (
            "time_zone_transition (Time_zone_id, Transition_time, Transition_type_id)",
            transitions,
        ),
        (
            "time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation)",
            types,
        ),
    ];
    let inserts = tables.iter().flat_map(|(into, values)| inserts(into, values));
    inserts.collect()
}

fn inserts(into: &str, values: &[String]) -> Vec<String> {
    let begin = format!("INSERT INTO mysql.{into} VALUES ");
    let mut statements: Vec<String> = Vec::new();
    for value in values {
        match statements.last_mut() {
            Some(statement) if statement.len() + value.len() < STATEMENT_BYTES => {
                statement.push(',');
                statement.push_str(value);
            }
            _ => statements.push(format!("{begin}{value}")),
        }
    }
    statements
}

/// Whether a name is that of a zone in these tables: neither SYSTEM nor a distance from UTC.
pub fn is_named(zone: &str) -> bool {
    !zone.eq_ignore_ascii_case("SYSTEM") && !zone.starts_with(['+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_become_statements_of_bounded_size() {
        let zone = TimeZone {
            names: BTreeMap::from([(7, vec!["A/B".into(), "it's".into()]), (9, vec![])]),
            transitions: (0..30_000).map(|second| (second, 1)).collect(),
            types: vec![ZoneType(0, -3600, true, "X".into())],
        };
        let statements = statements(std::slice::from_ref(&zone));
        assert!(statements.len() > 4);
        assert!(
            statements
                .iter()
                .all(|statement| statement.len() <= STATEMENT_BYTES + 100)
        );
        assert_eq!(
            statements[1],
            "INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('A/B',7),('it''s',7)"
        );
        assert!(
            statements
                .last()
                .unwrap()
                .ends_with("(7,0,-3600,1,'X'),(9,0,-3600,1,'X')")
        );
        assert!(super::statements(&[]).is_empty());
        let json = serde_json::to_value(&zone).unwrap();
        assert_eq!(serde_json::from_value::<TimeZone>(json).unwrap(), zone);
    }

    #[test]
    fn only_names_are_named() {
        assert!(is_named("Europe/Berlin") && is_named("UTC"));
        assert!(!is_named("SYSTEM") && !is_named("+02:00") && !is_named("-00:30"));
        assert_eq!(
            zone_type("2 -3600 1 "),
            Some(ZoneType(2, -3600, true, String::new()))
        );
        assert_eq!(zone_type("2 x"), None);
    }
}
