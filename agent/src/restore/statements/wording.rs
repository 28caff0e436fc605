//! What a statement does, by its words, and what has to be said otherwise in it than on the source. Pure.
//!
//! Words decide, so the answer leans to the careful side. What may not be run at all is refused elsewhere ([`super::apply`] and the source of
//! the replay).

use std::borrow::Cow;

use crate::server::accounts::AccountName;
use crate::server::identifiers::quote_identifier;
use crate::wire::event::{behind_comments, first_words, has_word};

/// Whether a statement changes rows and defines nothing.
pub(super) fn changes_rows(words: &[&str]) -> bool {
    const VERBS: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "DO", "SELECT"];
    match words {
        ["ANALYZE", verb, ..] => VERBS.contains(verb),
        [verb, ..] => VERBS.contains(verb),
        [] => false,
    }
}

/// Whether triggers have to be there when a statement runs: it may fire them, move them, or take them with it.
pub(super) fn meets_triggers(words: &[&str], text: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "USER",
        "ROLE",
        "VIEW",
        "PROCEDURE",
        "FUNCTION",
        "EVENT",
        "SEQUENCE",
        "INDEX",
    ];
    match words {
        ["CREATE", "OR", "REPLACE", "TABLE", ..] => true,
        ["CREATE", ..] => has_word(text, "TRIGGER"),
        ["ANALYZE", ..] => changes_rows(words),
        ["TRUNCATE" | "OPTIMIZE" | "FLUSH" | "GRANT" | "REVOKE" | "SET", ..] => false,
        ["ALTER" | "DROP", what, ..] => !OTHERS.contains(what),
        _ => true,
    }
}

/// The words of a statement, those behind FOR in MariaDB's `SET STATEMENT … FOR …`.
pub(super) fn words_of(sql: &[u8]) -> Vec<String> {
    let words = first_words(sql);
    if !matches!(words.as_slice(), [set, statement, ..] if set == "SET" && statement == "STATEMENT") {
        return words;
    }
    let is_for = |four: &[u8]| four[0].is_ascii_whitespace() && four[1..].eq_ignore_ascii_case(b"FOR");
    match sql.windows(4).position(is_for) {
        Some(at) => first_words(&sql[at + 4..]),
        None => words,
    }
}

/// Whether a statement may say where a table's files lie.
pub(super) fn makes_table(words: &[&str]) -> bool {
    matches!(words, ["CREATE" | "ALTER", rest @ ..] if rest.contains(&"TABLE"))
}

/// Whether a statement may make an event or change one. Names before that word may take all of the first words.
pub(super) fn may_be_about_event(words: &[&str], text: &str) -> bool {
    const OTHERS: [&str; 6] = ["TABLE", "DATABASE", "SCHEMA", "INDEX", "UNIQUE", "USER"];
    match words {
        ["CREATE" | "ALTER", what, ..] => !OTHERS.contains(what) && has_word(text, "EVENT"),
        _ => false,
    }
}

/// Who alters an event becomes its definer. The statement does not say who that was, but the event does.
pub(super) fn as_its_definer<'s>(
    sql: &'s [u8],
    words: &[&str],
    invoker: Option<(&[u8], &[u8])>,
) -> Cow<'s, [u8]> {
    let (["ALTER", "EVENT", ..], Some((user, host))) = (words, invoker) else {
        return sql.into();
    };
    let statement = behind_comments(sql);
    let is_event = |at: &usize| {
        statement[*at..]
            .get(..5)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"EVENT"))
    };
    let Some(at) = (0..statement.len()).find(is_event) else {
        return sql.into();
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let host = (!host.is_empty()).then(|| text(host));
    let definer = definer_of(&AccountName {
        user: text(user),
        host,
    });
    let (alter, rest) = statement.split_at(at);
    [alter, format!("DEFINER={definer} ").as_bytes(), rest]
        .concat()
        .into()
}

/// As servers write it into binlogs.
fn definer_of(account: &AccountName) -> String {
    let user = quote_identifier(&account.user);
    match &account.host {
        Some(host) => format!("{user}@{}", quote_identifier(host)),
        // A role of MariaDB.
        None => user,
    }
}

/// Has programs run as the accounts that were given for those that their statements name.
pub(super) fn run_by_another<'s>(
    sql: &'s [u8],
    words: &[&str],
    renamed: &[(AccountName, AccountName)],
) -> Cow<'s, [u8]> {
    const AT_THE_BEGINNING: usize = 400;
    if !matches!(words, ["CREATE" | "ALTER", ..]) {
        return sql.into();
    }
    for (from, to) in renamed {
        let named = format!("DEFINER={} ", definer_of(from)).into_bytes();
        let head = &sql[..sql.len().min(AT_THE_BEGINNING)];
        if let Some(at) = head.windows(named.len()).position(|part| part == named) {
            let by = format!("DEFINER={} ", definer_of(to));
            return [&sql[..at], by.as_bytes(), &sql[at + named.len()..]]
                .concat()
                .into();
        }
    }
    sql.into()
}

/// MySQL writes `CREATE TABLE … START TRANSACTION` before the rows of a CREATE … SELECT; no session may insert rows behind it.
pub(super) fn without_start_of_transaction<'s>(sql: &'s [u8], words: &[&str]) -> &'s [u8] {
    const TAIL: &[u8] = b" START TRANSACTION";
    match words {
        ["CREATE", "TABLE", ..] => sql.strip_suffix(TAIL).unwrap_or(sql),
        _ => sql,
    }
}

/// The beginning of a statement, for people.
pub(super) fn shown(sql: &[u8]) -> String {
    let text = String::from_utf8_lossy(sql);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T>(sql: &str, ask: impl Fn(&[&str], &str) -> T) -> T {
        let words = words_of(sql.as_bytes());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ask(&words, sql)
    }

    #[test]
    fn statements_are_known_by_their_words() {
        for (sql, rows, triggers, event) in [
            ("INSERT INTO t VALUES (1)", true, true, false),
            (
                "SET STATEMENT max_statement_time = 10 FOR DELETE FROM t",
                true,
                true,
                false,
            ),
            ("ANALYZE TABLE t", false, false, false),
            ("ANALYZE UPDATE t SET a = 1", true, true, false),
            ("CREATE OR REPLACE TABLE t (a INT)", false, true, false),
            ("CREATE TABLE event (event INT)", false, false, false),
            (
                "CREATE DEFINER=`a`@`b` TRIGGER c BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
                false,
                true,
                false,
            ),
            (
                "CREATE DEFINER=`app`@`10.0.0.%` EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t",
                false,
                false,
                true,
            ),
            ("/* tool */ alter event e disable", false, false, true),
            ("ALTER TABLE t ADD a INT", false, true, false),
            ("RENAME TABLE a TO b", false, true, false),
            ("TRUNCATE t", false, false, false),
            ("DROP VIEW v", false, false, false),
        ] {
            assert_eq!(of(sql, |words, _| changes_rows(words)), rows, "{sql}");
            assert_eq!(of(sql, meets_triggers), triggers, "{sql}");
            assert_eq!(of(sql, may_be_about_event), event, "{sql}");
        }
    }

    #[test]
    fn statements_run_as_they_did_or_as_somebody_else() {
        let altered = of("/* x */ ALTER EVENT e ENABLE", |words, sql| {
            let invoker: Option<(&[u8], &[u8])> = Some((b"ro`ot", b"localhost"));
            as_its_definer(sql.as_bytes(), words, invoker).into_owned()
        });
        assert_eq!(altered, b"ALTER DEFINER=`ro``ot`@`localhost` EVENT e ENABLE");
        let account = |user: &str| AccountName {
            user: user.to_owned(),
            host: Some("%".to_owned()),
        };
        let renamed = [(account("root"), account("admin"))];
        for (sql, wanted) in [
            (
                "CREATE DEFINER=`root`@`%` VIEW v AS SELECT 1",
                "CREATE DEFINER=`admin`@`%` VIEW v AS SELECT 1",
            ),
            (
                "CREATE DEFINER=`rooter`@`%` VIEW v AS SELECT 1",
                "CREATE DEFINER=`rooter`@`%` VIEW v AS SELECT 1",
            ),
            (
                "INSERT INTO t VALUES ('DEFINER=`root`@`%` ')",
                "INSERT INTO t VALUES ('DEFINER=`root`@`%` ')",
            ),
        ] {
            let run = of(sql, |words, sql| {
                run_by_another(sql.as_bytes(), words, &renamed).into_owned()
            });
            assert_eq!(String::from_utf8(run).unwrap(), wanted);
        }
        let begun = of("CREATE TABLE t (a INT) START TRANSACTION", |words, sql| {
            without_start_of_transaction(sql.as_bytes(), words).to_vec()
        });
        assert_eq!(begun, b"CREATE TABLE t (a INT)");
    }
}
