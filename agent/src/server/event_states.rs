//! Whether each event is on: what a replay alone cannot bring back, since a replica switches off whatever events it is sent.
//!
//! Follows the statements about events from what the backup knows. Not responsible for switching events on again.

use std::collections::BTreeMap;

use super::identifiers::TableName;
use super::inventory::{Inventory, ProgramKind};
use super::tokens::{Kind, Letters, Quoting, Token, Tokens, unquoted};

/// Whether an event runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    /// It does.
    Enabled,
    /// It does not.
    Disabled,
    /// It does not, since the source itself had it from another server.
    DisabledOnReplica,
}

/// A statement about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Create(EventState),
    CreateIfMissing(EventState),
    Alter {
        state: Option<EventState>,
        new_name: Option<TableName>,
    },
    Drop,
}

/// The state of every event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventStates(BTreeMap<TableName, EventState>);

impl EventStates {
    /// Those of a backup.
    pub fn of(inventory: &Inventory) -> Self {
        let mut states = Self::default();
        for program in &inventory.programs {
            if program.kind == ProgramKind::Event {
                let quoting = Quoting::of_mode(program.sql_mode.as_deref().unwrap_or_default());
                let schema = program.name.schema.as_str();
                if let Some((_, Change::Create(state))) = read(schema, &program.statement.0, quoting) {
                    states.0.insert(program.name.clone(), state);
                }
            }
        }
        states
    }

    /// Takes a statement that ran with this default schema and these bits of sql_mode; passes over whatever is not about events.
    pub fn follow(&mut self, schema: &str, sql: &[u8], sql_mode: u64) {
        const ANSI_QUOTES: u64 = 1 << 2;
        const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;
        let quoting = Quoting {
            double_quote_is_identifier: sql_mode & ANSI_QUOTES != 0,
            backslash_escapes: sql_mode & NO_BACKSLASH_ESCAPES == 0,
            letters: Letters::Plain,
        };
        if let Some(dropped) = dropped_schema(sql, quoting) {
            self.0.retain(|name, _| name.schema.as_str() != dropped);
        }
        let Some((name, change)) = read(schema, sql, quoting) else {
            return;
        };
        match change {
            Change::Create(state) => {
                self.0.insert(name, state);
            }
            Change::CreateIfMissing(state) => {
                self.0.entry(name).or_insert(state);
            }
            Change::Drop => {
                self.0.remove(&name);
            }
            Change::Alter { state, new_name } => {
                let was = self.0.remove(&name);
                if let Some(state) = state.or(was) {
                    self.0.insert(new_name.unwrap_or(name), state);
                }
            }
        }
    }

    /// The state that an event should have; `None` where nothing told of it.
    pub fn wanted(&self, name: &TableName) -> Option<EventState> {
        self.0.get(name).copied()
    }
}

struct Words<'a> {
    sql: &'a [u8],
    tokens: std::iter::Peekable<Tokens<'a>>,
}

impl Words<'_> {
    fn is(&self, token: &Token, word: &str) -> bool {
        token.kind == Kind::Word && self.sql[token.range.clone()].eq_ignore_ascii_case(word.as_bytes())
    }

    fn take(&mut self, word: &str) -> bool {
        let next = self.tokens.peek().cloned();
        let found = next.is_some_and(|token| self.is(&token, word));
        if found {
            self.tokens.next();
        }
        found
    }

    fn take_symbol(&mut self, symbol: u8) -> bool {
        let is_it =
            |token: &Token| token.kind == Kind::Symbol && self.sql.get(token.range.start) == Some(&symbol);
        let found = self.tokens.peek().is_some_and(is_it);
        if found {
            self.tokens.next();
        }
        found
    }

    fn name(&mut self) -> Option<String> {
        let token = self.tokens.next()?;
        let text = &self.sql[token.range];
        let name = match token.kind {
            Kind::Word => text.to_vec(),
            Kind::Identifier => unquoted(text)?,
            Kind::Text | Kind::Symbol => return None,
        };
        String::from_utf8(name).ok()
    }

    fn qualified_name(&mut self, schema: &str) -> Option<TableName> {
        let first = self.name()?;
        if self.take_symbol(b'.') {
            TableName::new(first, self.name()?).ok()
        } else {
            TableName::new(schema, first).ok()
        }
    }

    fn skip_definer(&mut self) -> Option<()> {
        if self.take("DEFINER") {
            self.take_symbol(b'=').then_some(())?;
            self.tokens.next()?;
            if self.take_symbol(b'@') {
                self.tokens.next()?;
            } else if self.take_symbol(b'(') {
                self.take_symbol(b')').then_some(())?; // CURRENT_USER()
            }
        }
        Some(())
    }
}

/// The schema that a statement drops, and its events with it.
fn dropped_schema(sql: &[u8], quoting: Quoting) -> Option<String> {
    let mut words = Words {
        sql,
        tokens: Tokens::new(sql, quoting).peekable(),
    };
    (words.take("DROP") && (words.take("DATABASE") || words.take("SCHEMA"))).then_some(())?;
    let _ = words.take("IF") && words.take("EXISTS");
    words.name()
}

/// What a statement does to which event; `None` where it is about something else.
fn read(schema: &str, sql: &[u8], quoting: Quoting) -> Option<(TableName, Change)> {
    let mut words = Words {
        sql,
        tokens: Tokens::new(sql, quoting).peekable(),
    };
    if words.take("DROP") {
        words.take("EVENT").then_some(())?;
        let _ = words.take("IF") && words.take("EXISTS");
        return Some((words.qualified_name(schema)?, Change::Drop));
    }
    let is_create = words.take("CREATE");
    (is_create || words.take("ALTER")).then_some(())?;
    let _ = words.take("OR") && words.take("REPLACE");
    words.skip_definer()?;
    words.take("EVENT").then_some(())?;
    let if_missing = words.take("IF") && words.take("NOT") && words.take("EXISTS");
    let name = words.qualified_name(schema)?;
    let (state, new_name) = clauses(&mut words, schema);
    let created = state.unwrap_or(EventState::Enabled);
    let change = match (is_create, if_missing) {
        (true, true) => Change::CreateIfMissing(created),
        (true, false) => Change::Create(created),
        (false, _) => Change::Alter { state, new_name },
    };
    Some((name, change))
}

/// The clauses between an event's name and its body that matter here.
fn clauses(words: &mut Words<'_>, schema: &str) -> (Option<EventState>, Option<TableName>) {
    let (mut state, mut new_name) = (None, None);
    let mut depth = 0_usize;
    while let Some(token) = words.tokens.next() {
        if token.kind == Kind::Symbol {
            match words.sql.get(token.range.start) {
                Some(b'(') => depth += 1,
                Some(b')') => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth > 0 {
            continue; // inside of an expression of the schedule
        }
        if words.is(&token, "DO") {
            break;
        }
        if words.is(&token, "ENABLE") {
            state = Some(EventState::Enabled);
        } else if words.is(&token, "DISABLE") {
            let of_replica = words.take("ON");
            state = Some(if of_replica {
                EventState::DisabledOnReplica
            } else {
                EventState::Disabled
            });
        } else if words.is(&token, "RENAME") && words.take("TO") {
            new_name = words.qualified_name(schema);
        }
    }
    (state, new_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(statements: &[&str]) -> Vec<String> {
        let mut states = EventStates::default();
        for statement in statements {
            states.follow("d", statement.as_bytes(), 0);
        }
        let told = states.0.iter().map(|(name, state)| format!("{name} {state:?}"));
        told.collect()
    }

    #[test]
    fn an_event_is_on_until_a_statement_says_otherwise() {
        for (statement, wanted) in [
            (
                "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @disable = 'DISABLE'",
                "`d`.`e` Enabled",
            ),
            (
                "create definer=`a`@`b` event if not exists `x`.`e``` on schedule at now() + interval (if(1, 2, 3)) day disable do set @a = 1",
                "`x`.`e``` Disabled",
            ),
            (
                "/* DISABLE */ CREATE OR REPLACE DEFINER=CURRENT_USER() EVENT e ON SCHEDULE AT '2030-01-01' ON COMPLETION NOT PRESERVE DISABLE ON SLAVE COMMENT 'ENABLE' DO ENABLE()",
                "`d`.`e` DisabledOnReplica",
            ),
            (
                "CREATE EVENT e ON SCHEDULE EVERY 1 DAY COMMENT 'DISABLE' DO BEGIN END",
                "`d`.`e` Enabled",
            ),
        ] {
            assert_eq!(followed(&[statement]), [wanted], "{statement}");
        }
        for statement in [
            "CREATE TABLE event (a INT)",
            "CREATE VIEW e AS SELECT 1",
            "DROP TABLE event",
            "ALTER TABLE e ENABLE KEYS",
            "CREATE EVENT",
            "",
            "CREATE EVENT `e",
        ] {
            assert_eq!(followed(&[statement]), Vec::<String>::new(), "{statement}");
        }
    }

    #[test]
    fn a_schema_takes_its_events_with_it() {
        let create = "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SET @a = 1";
        let again = "CREATE EVENT IF NOT EXISTS e ON SCHEDULE EVERY 1 DAY DO SELECT 1";
        for drop in ["DROP DATABASE d", "drop schema if exists `d`"] {
            assert_eq!(followed(&[create, drop]), Vec::<String>::new());
            assert_eq!(followed(&[create, drop, again]), ["`d`.`e` Enabled"]);
        }
        assert_eq!(followed(&[create, "DROP DATABASE x"]), ["`d`.`e` Disabled"]);
    }

    #[test]
    fn changes_of_an_event_are_followed() {
        let create = "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SET @a = 1";
        assert_eq!(
            followed(&[create, "ALTER EVENT e COMMENT 'ENABLE'"]),
            ["`d`.`e` Disabled"]
        );
        assert_eq!(
            followed(&[create, "ALTER DEFINER=r EVENT d.e RENAME TO x.`f` ENABLE"]),
            ["`x`.`f` Enabled"]
        );
        assert_eq!(
            followed(&[
                create,
                "ALTER EVENT e ON SCHEDULE EVERY 2 DAY RENAME TO f DO SET @b = 1"
            ]),
            ["`d`.`f` Disabled"]
        );
        assert_eq!(
            followed(&[
                create,
                "CREATE EVENT IF NOT EXISTS e ON SCHEDULE EVERY 1 DAY DO SELECT 1"
            ]),
            ["`d`.`e` Disabled"]
        );
        assert_eq!(
            followed(&[create, "DROP EVENT IF EXISTS e"]),
            Vec::<String>::new()
        );
    }
}
