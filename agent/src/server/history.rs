//! The partitions that a versioned table keeps its history in by number of rows: MariaDB's `PARTITION BY SYSTEM_TIME LIMIT`.
//!
//! Such a partition is filled as rows become history; rows of a history that somebody writes all go to the first one. So a dump records how
//! they are spread, and a restore spreads them again: into a new table, partition by partition, since the server goes to the next
//! partition at a statement that changes rows once the current one is full (measured on MariaDB 10.11 and 11.8). What the order of
//! things is in a restore is not decided here.

use holdfast_proto::manifest::HistoryPartition;

use super::identifiers::{TableName, quote_text};
use super::inventory::{Carry, NotCarried, RowSource, Table};
use super::tokens::{Kind, Letters, Quoting, Tokens};
use crate::wire::{Connection, WireError};

/// How the history of a table is spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// As rows are loaded: all in the first partition, or no such partitions.
    AsLoaded,
    /// Over these partitions, in their order; can be made again.
    Over(Vec<HistoryPartition>),
    /// In a way that cannot be made again.
    Lost,
}

/// Partitions of a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    /// Rows that one takes.
    rows: u64,
    /// The server adds one when the last is full.
    is_auto: bool,
}

/// The partitions of a number of rows that a history is kept in, if it is.
fn limit_of(create_statement: &str) -> Option<Limit> {
    let quoting = Quoting {
        double_quote_is_identifier: false,
        backslash_escapes: true,
        letters: Letters::Plain,
    };
    let sql = create_statement.as_bytes();
    let words: Vec<&[u8]> = Tokens::new(sql, quoting)
        .map(|token| match token.kind {
            Kind::Word => &sql[token.range],
            _ => b"",
        })
        .collect();
    let is = |word: &[u8], wanted: &str| word.eq_ignore_ascii_case(wanted.as_bytes());
    let wanted = ["PARTITION", "BY", "SYSTEM_TIME", "LIMIT"];
    let is_it = |words: &[&[u8]]| words.iter().zip(wanted).all(|(word, wanted)| is(word, wanted));
    let at = words.windows(wanted.len()).position(is_it)? + wanted.len();
    Some(Limit {
        rows: std::str::from_utf8(words.get(at)?).ok()?.parse().ok()?,
        is_auto: words.get(at + 1).is_some_and(|word| is(word, "AUTO")),
    })
}

/// Whether a table's history is kept by number of rows.
pub fn is_limited(table: &Table) -> bool {
    table.rows == RowSource::WithHistory && limit_of(&table.create_statement).is_some()
}

/// The columns of the row period.
fn period(table: &Table) -> Option<(String, String)> {
    let of = |wanted| {
        let column = table.columns.iter().find(|column| column.carry == wanted);
        column.map(|column| column.name.quoted())
    };
    Some((of(Carry::RowStart)?, of(Carry::RowEnd)?))
}

/// Looks how the history of a table is spread, in the snapshot of the connection.
///
/// # Errors
/// Where the connection fails, or the server refuses to read a partition.
pub async fn spread(connection: &mut Connection, table: &Table) -> Result<Spread, WireError> {
    let limit = limit_of(&table.create_statement).filter(|_| table.rows == RowSource::WithHistory);
    let (Some(limit), Some((start, end))) = (limit, period(table)) else {
        return Ok(Spread::AsLoaded);
    };
    let mut partitions = Vec::new();
    for name in names(connection, &table.name).await? {
        let sql = format!(
            "SELECT COUNT(*) AS n, COALESCE(CAST(UNIX_TIMESTAMP(MIN({end})) * 1000000 AS UNSIGNED), 0) AS first, \
             COALESCE(CAST(UNIX_TIMESTAMP(MAX({end})) * 1000000 AS UNSIGNED), 0) AS last FROM {} PARTITION ({name}) WHERE {start} < {end}",
            table.name.quoted()
        );
        let rows = connection.query(sql).await?;
        let row = rows.one()?;
        partitions.push(HistoryPartition {
            rows: row.u64("n")?,
            first_end_us: row.u64("first")?,
            last_end_us: row.u64("last")?,
        });
    }
    Ok(judge(partitions, limit.rows))
}

/// The partitions of a table's history, quoted, in their order.
async fn names(connection: &mut Connection, table: &TableName) -> Result<Vec<String>, WireError> {
    let sql = format!(
        "SELECT PARTITION_NAME AS n, PARTITION_ORDINAL_POSITION AS o FROM information_schema.PARTITIONS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND PARTITION_NAME IS NOT NULL GROUP BY 1, 2 ORDER BY 2",
        quote_text(table.schema.as_str()),
        quote_text(table.name.as_str())
    );
    let rows = connection.query(sql).await?;
    let mut names = Vec::new();
    for row in &rows {
        names.push(super::identifiers::quote_identifier(&row.str("n")?));
    }
    // The last one has the rows that are current.
    names.pop();
    Ok(names)
}

/// Partitions are filled one after the other, each to its limit, and rows are told apart by when they became history.
fn judge(mut partitions: Vec<HistoryPartition>, limit: u64) -> Spread {
    while partitions.last().is_some_and(|partition| partition.rows == 0) {
        partitions.pop();
    }
    if partitions.len() < 2 {
        return Spread::AsLoaded;
    }
    let mut pairs = partitions.iter().zip(partitions.iter().skip(1));
    let can_be_made = pairs.all(|(one, next)| one.rows >= limit && one.last_end_us < next.first_end_us);
    match can_be_made {
        true => Spread::Over(partitions),
        false => Spread::Lost,
    }
}

/// What is said of a table whose history comes back in its first partition.
pub fn not_spread(table: &TableName) -> NotCarried {
    NotCarried {
        code: "history-partitions".to_owned(),
        object: table.quoted(),
        what: "rows of its history come back in one partition: the server fills those with a LIMIT as rows become history".to_owned(),
    }
}

/// What is said of a table to which the server adds partitions by itself.
pub fn not_grown(table: &Table) -> Option<NotCarried> {
    let limit = limit_of(&table.create_statement).filter(|_| table.rows == RowSource::WithHistory)?;
    limit.is_auto.then(|| NotCarried {
        what: "a replay adds no partitions to it, as no replica does: what became history after the backup comes back in the last partition that it had".to_owned(),
        ..not_spread(&table.name)
    })
}

/// Statements that fill a new table from one that has all its rows, partition by partition, for a session that loads rows, in UTC.
/// With each comes the number of rows that it must write; `None`: it writes none.
pub fn fill(
    table: &Table,
    from: &TableName,
    partitions: &[HistoryPartition],
) -> Option<Vec<(String, Option<u64>)>> {
    let (start, end) = period(table)?;
    let columns: Vec<String> = table
        .columns
        .iter()
        .filter(|column| column.carry.is_dumped())
        .map(|column| column.name.quoted())
        .collect();
    let columns = columns.join(", ");
    let to = table.name.quoted();
    let insert = format!(
        "INSERT INTO {to} ({columns}) SELECT {columns} FROM {}",
        from.quoted()
    );
    let mut statements = Vec::new();
    for (index, partition) in partitions.iter().enumerate() {
        if index > 0 {
            // Changes nothing, and has the server look whether the partition is full.
            statements.push((format!("DELETE FROM {to} WHERE FALSE"), None));
        }
        let history = format!(
            // The column alone would have the server pass over partitions, and over the wrong ones at their bounds.
            "{insert} FOR SYSTEM_TIME ALL WHERE {start} < {end} AND UNIX_TIMESTAMP({end}) BETWEEN {} AND {}",
            seconds(partition.first_end_us),
            seconds(partition.last_end_us)
        );
        statements.push((history, Some(partition.rows)));
    }
    statements.push((insert, None));
    Some(statements)
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_where_the_table_is_partitioned_by_it() {
        let limit = |rows, is_auto| Some(Limit { rows, is_auto });
        for (create, limit) in [
            (
                "CREATE TABLE `t` (`a` int) WITH SYSTEM VERSIONING\n PARTITION BY SYSTEM_TIME LIMIT 2\nPARTITIONS 3",
                limit(2, false),
            ),
            (
                "CREATE TABLE `t` (`a` int) PARTITION BY SYSTEM_TIME LIMIT 1000 AUTO",
                limit(1000, true),
            ),
            (
                "CREATE TABLE `t` (`a` int) PARTITION BY SYSTEM_TIME INTERVAL 1 DAY",
                None,
            ),
            (
                "CREATE TABLE `t` (`a` int COMMENT 'PARTITION BY SYSTEM_TIME LIMIT 2')",
                None,
            ),
        ] {
            assert_eq!(limit_of(create), limit, "{create}");
        }
    }

    #[test]
    fn only_full_partitions_one_after_the_other_can_be_made_again() {
        let of = |rows: &[(u64, u64, u64)]| {
            let one = |&(rows, first_end_us, last_end_us): &(u64, u64, u64)| HistoryPartition {
                rows,
                first_end_us,
                last_end_us,
            };
            rows.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(judge(of(&[(9, 1, 5), (0, 0, 0)]), 2), Spread::AsLoaded);
        let two = of(&[(3, 1, 5), (1, 6, 6)]);
        assert_eq!(
            judge(of(&[(3, 1, 5), (1, 6, 6), (0, 0, 0)]), 2),
            Spread::Over(two)
        );
        for lost in [
            of(&[(1, 1, 5), (1, 6, 6)]),
            of(&[(2, 1, 6), (1, 6, 6)]),
            of(&[(2, 1, 6), (0, 0, 0), (1, 7, 7)]),
        ] {
            assert_eq!(judge(lost, 2), Spread::Lost);
        }
    }
}
