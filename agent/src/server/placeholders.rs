//! Views that their own server cannot make sense of any more: what they read is gone, or lacks a column. A server makes no such view, so
//! what it reads is made for a moment, in schemas that hold nothing else yet, and dropped again; then the view is what it was.
//!
//! What is lacking is told by the server, one thing at a time. A view of which that is not understood is not made here.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{RebuildError, create_program, run};
use super::identifiers::{TableName, quote_identifier};
use super::inventory::ProgramKind;
use super::rebuild::{Phase, RebuildPlan, Step, StepKind};
use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};
use crate::wire::{Connection, WireError};

/// A view lacks no more things than this.
const TRIES_MAX: usize = 2000;
/// The first column of a table has to have some name.
const FIRST_COLUMN: &str = "holdfast-placeholder";

const NO_DATABASE: u16 = 1049;

/// What is made for a moment. Nothing is tried twice, and nothing is dropped that was not made here.
#[derive(Default)]
struct Placeholders {
    schemas: BTreeSet<String>,
    tables: BTreeMap<(String, String), BTreeSet<String>>,
    functions: BTreeSet<(String, String)>,
    /// What drops what was made, in the order in which that was made.
    drops: Vec<String>,
}

/// A statement that makes something, or changes it.
struct Making {
    schema: String,
    statement: String,
    /// What drops it again, if it makes something.
    drop: Option<String>,
}

impl Making {
    fn schema(schema: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            statement: format!("CREATE DATABASE {}", quote_identifier(schema)),
            drop: Some(format!("DROP DATABASE {}", quote_identifier(schema))),
        }
    }
}

/// Whether a step makes a view that was invalid at the source.
pub(super) fn is_invalid_view(step: &Step) -> bool {
    step.kind == StepKind::Program(ProgramKind::View) && step.invalid_at_source
}

/// Makes what views of a plan it can that were invalid at the source, while there are schemas and nothing in them.
///
/// # Errors
/// [`RebuildError`] where the connection fails, or what was made for a moment cannot be dropped.
pub(super) async fn make_invalid_views(
    connection: &mut Connection,
    plan: &RebuildPlan,
) -> Result<(), RebuildError> {
    let steps = plan.steps(Phase::Programs).iter();
    let mut waiting: Vec<&Step> = steps.filter(|step| is_invalid_view(step)).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let views: BTreeSet<String> = waiting.iter().map(|step| step.object.clone()).collect();
    let mut placeholders = Placeholders::default();
    // One view may read another.
    loop {
        let before = waiting.len();
        let mut refused = Vec::new();
        for step in waiting {
            if !placeholders.make(connection, step, &views).await? {
                refused.push(step);
            }
        }
        if refused.is_empty() || refused.len() == before {
            break;
        }
        waiting = refused;
    }
    placeholders.drop_all(connection).await
}

impl Placeholders {
    /// Makes a view with all that it lacks. False: that cannot be found out, or another view comes first.
    async fn make(
        &mut self,
        connection: &mut Connection,
        step: &Step,
        views: &BTreeSet<String>,
    ) -> Result<bool, RebuildError> {
        let Some(names) = Names::of(step) else {
            return Ok(false);
        };
        for _ in 0..TRIES_MAX {
            let Err(reason) = create_program(connection, step).await? else {
                return Ok(true);
            };
            // The view's own session may read what follows otherwise.
            run(connection, "SET NAMES utf8mb4").await?;
            run(connection, "SET SESSION sql_mode = ''").await?;
            let Some(statements) = self.lacking(&reason, &names, views) else {
                tracing::debug!("{} is not made: {reason}", step.object);
                return Ok(false);
            };
            for making in statements {
                if let Err(error) = self.execute(connection, making).await? {
                    tracing::debug!("{} is not made: {error}", step.object);
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// Executes a statement that makes something in a schema, which may be lacking itself: not every server says so first.
    async fn execute(
        &mut self,
        connection: &mut Connection,
        making: Making,
    ) -> Result<Result<(), WireError>, RebuildError> {
        let Making {
            schema,
            statement,
            drop,
        } = making;
        let mut done = connection.execute(&statement).await;
        if done
            .as_ref()
            .is_err_and(|error| error.server_code() == Some(NO_DATABASE))
        {
            let making = Making::schema(&schema);
            run(connection, &making.statement).await?;
            self.schemas.insert(schema);
            self.drops.extend(making.drop);
            done = connection.execute(&statement).await;
        }
        match done {
            Err(source) if source.server_code().is_none() => Err(RebuildError::Session { statement, source }),
            Err(refused) => Ok(Err(refused)),
            Ok(_) => {
                self.drops.extend(drop);
                Ok(Ok(()))
            }
        }
    }

    /// The statements that make what the server says is lacking, each with the schema that it is in.
    fn lacking(
        &mut self,
        reason: &WireError,
        names: &Names,
        views: &BTreeSet<String>,
    ) -> Option<Vec<Making>> {
        const NO_TABLE: u16 = 1146;
        const NO_COLUMN: u16 = 1054;
        const NO_FUNCTION: u16 = 1305;
        let WireError::Server { code, message, .. } = reason else {
            return None;
        };
        match *code {
            NO_DATABASE => {
                let schema = names.pairs().map(|(schema, _)| schema);
                let schema = schema
                    .filter(|schema| is_named(message, &[schema]))
                    .max()?
                    .to_owned();
                let making = Making::schema(&schema);
                self.schemas.insert(schema).then(|| vec![making])
            }
            NO_TABLE => {
                let pair = names
                    .pairs()
                    .find(|(schema, name)| is_named(message, &[schema, name]))?;
                let (schema, name) = (pair.0.to_owned(), pair.1.to_owned());
                let table = TableName::new(&schema, &name).ok()?.quoted();
                if views.contains(&table) {
                    return None;
                }
                let new = self.tables.insert((schema.clone(), name), BTreeSet::new());
                let making = Making {
                    schema,
                    statement: format!("CREATE TABLE {table} ({} INT)", quote_identifier(FIRST_COLUMN)),
                    drop: Some(format!("DROP TABLE {table}")),
                };
                new.is_none().then(|| vec![making])
            }
            NO_COLUMN => self.with_column(message, names),
            NO_FUNCTION => {
                let is_it = |called: &&Called| is_named(message, &[&called.schema, &called.name]);
                let called = names.calls.iter().find(is_it)?;
                let function = TableName::new(&called.schema, &called.name).ok()?.quoted();
                let parameters: Vec<String> = (0..called.arguments).map(|n| format!("p{n} TEXT")).collect();
                let making = Making {
                    schema: called.schema.clone(),
                    statement: format!(
                        "CREATE FUNCTION {function}({}) RETURNS TEXT DETERMINISTIC NO SQL RETURN NULL",
                        parameters.join(", ")
                    ),
                    drop: Some(format!("DROP FUNCTION {function}")),
                };
                let new = self
                    .functions
                    .insert((called.schema.clone(), called.name.clone()));
                new.then(|| vec![making])
            }
            _ => None,
        }
    }

    /// Adds a column to the table that is meant; behind another name of a table, to all that the view reads.
    fn with_column(&mut self, message: &str, names: &Names) -> Option<Vec<Making>> {
        let chain = names.chains.iter().find(|chain| {
            let parts: Vec<&str> = chain.iter().map(String::as_str).collect();
            is_named(message, &parts)
        })?;
        let (column, qualifier) = chain.split_last()?;
        let table = qualifier.last();
        let is_meant = |(schema, name): &(String, String)| match qualifier {
            [of, _] => of == schema && Some(name) == table,
            _ => Some(name) == table,
        };
        let is_read = |pair: &(String, String)| names.pairs().any(|(a, b)| (a, b) == (&pair.0, &pair.1));
        let anyone = !self.tables.keys().any(|pair| is_read(pair) && is_meant(pair));
        let mut statements = Vec::new();
        for (pair, columns) in &mut self.tables {
            if is_read(pair) && (anyone || is_meant(pair)) && columns.insert(column.clone()) {
                let table = TableName::new(&pair.0, &pair.1).ok()?.quoted();
                let column = quote_identifier(column);
                statements.push(Making {
                    schema: pair.0.clone(),
                    statement: format!("ALTER TABLE {table} ADD COLUMN {column} TEXT"),
                    drop: None,
                });
            }
        }
        (!statements.is_empty()).then_some(statements)
    }

    async fn drop_all(self, connection: &mut Connection) -> Result<(), RebuildError> {
        for statement in self.drops.iter().rev() {
            run(connection, statement).await?;
        }
        Ok(())
    }
}

/// Whether a message of the server names this, in quotes or as a word: servers join parts by dots.
fn is_named(message: &str, parts: &[&str]) -> bool {
    let name = parts.join(".");
    let quoted = format!("'{name}'");
    message.contains(&quoted) || message.split(' ').any(|word| word == name)
}

/// A function that a view calls.
struct Called {
    schema: String,
    name: String,
    arguments: usize,
}

/// The names in a view's statement.
struct Names {
    /// Names that are joined by dots, each with its parts.
    chains: BTreeSet<Vec<String>>,
    calls: Vec<Called>,
}

impl Names {
    /// `None` where the statement is in another character set.
    fn of(step: &Step) -> Option<Self> {
        let sql = std::str::from_utf8(&step.statement).ok()?;
        let schema = step.schema.as_ref()?.as_str();
        let tokens: Vec<Token> = Tokens::new(sql.as_bytes(), Quoting::of_mode("")).collect();
        let is = |at: usize, symbol: &str| {
            tokens
                .get(at)
                .is_some_and(|token| &sql[token.range.clone()] == symbol)
        };
        let part = |at: usize| {
            let token = tokens.get(at).filter(|token| token.kind == Kind::Identifier)?;
            String::from_utf8(unquoted(sql[token.range.clone()].as_bytes())?).ok()
        };
        let (mut chains, mut calls) = (BTreeSet::new(), Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            let Some(first) = part(at) else {
                at += 1;
                continue;
            };
            let mut chain = vec![first];
            at += 1;
            while is(at, ".")
                && let Some(next) = part(at + 1)
            {
                chain.push(next);
                at += 2;
            }
            if is(at, "(") {
                let (of, name) = match chain.as_slice() {
                    [name] => (schema.to_owned(), name.clone()),
                    [of, name] => (of.clone(), name.clone()),
                    _ => continue,
                };
                let arguments = arguments(sql, &tokens[at..]);
                calls.push(Called {
                    schema: of,
                    name,
                    arguments,
                });
            }
            chains.insert(chain);
        }
        Some(Self { chains, calls })
    }

    fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.chains.iter().filter_map(|chain| match chain.as_slice() {
            [schema, name] => Some((schema, name)),
            _ => None,
        })
    }
}

/// How many arguments there are in the parentheses that begin here.
fn arguments(sql: &str, tokens: &[Token]) -> usize {
    let (mut depth, mut commas, mut is_empty) = (0_usize, 0, true);
    for token in tokens {
        match &sql[token.range.clone()] {
            "(" => depth += 1,
            ")" if depth == 1 => break,
            ")" => depth -= 1,
            "," if depth == 1 => commas += 1,
            _ => {}
        }
        is_empty &= depth == 1 && &sql[token.range.clone()] == "(";
    }
    if is_empty { 0 } else { commas + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::identifiers::SchemaName;

    fn names(statement: &str) -> Names {
        let step = Step {
            kind: StepKind::Program(ProgramKind::View),
            object: "`v`.`x`".into(),
            schema: Some(SchemaName::new("v").unwrap()),
            statement: statement.as_bytes().to_vec(),
            session: None,
            row_format: None,
            invalid_at_source: true,
        };
        Names::of(&step).unwrap()
    }

    #[test]
    fn what_is_lacking_is_made_from_what_the_server_says() {
        let names = names(
            "CREATE VIEW `x` AS select `v`.`g`.`it's` AS `a`,`o`.`b` AS `b`,`f`(`o`.`b`,(1,2),'x') AS `c`,`d``2`.`h`() AS `h` \
             from (`v`.`g` join `d``2`.`t` `o`)",
        );
        let calls: Vec<(&str, &str, usize)> = names
            .calls
            .iter()
            .map(|called| (called.schema.as_str(), called.name.as_str(), called.arguments))
            .collect();
        assert_eq!(calls, [("v", "f", 3), ("d`2", "h", 0)]);
        let mut placeholders = Placeholders::default();
        let mut told = |code: u16, message: &str| {
            let reason = WireError::Server {
                code,
                state: String::new(),
                message: message.to_owned(),
            };
            let views = BTreeSet::from(["`v`.`other`".to_owned()]);
            placeholders.lacking(&reason, &names, &views).map(|statements| {
                let statements: Vec<String> = statements.into_iter().map(|making| making.statement).collect();
                statements.join("; ")
            })
        };
        assert_eq!(
            told(1049, "Unknown database 'd`2'").unwrap(),
            "CREATE DATABASE `d``2`"
        );
        assert_eq!(
            told(1146, "Table 'd`2.t' doesn't exist").unwrap(),
            "CREATE TABLE `d``2`.`t` (`holdfast-placeholder` INT)"
        );
        assert_eq!(
            told(1146, "Table 'd`2.t' doesn't exist"),
            None,
            "it was made already"
        );
        assert!(told(1146, "Table 'v.g' doesn't exist").is_some());
        assert_eq!(
            told(1054, "Unknown column 'v.g.it's' in 'SELECT'").unwrap(),
            "ALTER TABLE `v`.`g` ADD COLUMN `it's` TEXT"
        );
        assert_eq!(
            told(1054, "Unknown column 'o.b' in 'field list'").unwrap(),
            "ALTER TABLE `d``2`.`t` ADD COLUMN `b` TEXT; ALTER TABLE `v`.`g` ADD COLUMN `b` TEXT"
        );
        assert_eq!(
            told(1305, "FUNCTION v.f does not exist").unwrap(),
            "CREATE FUNCTION `v`.`f`(p0 TEXT, p1 TEXT, p2 TEXT) RETURNS TEXT DETERMINISTIC NO SQL RETURN NULL"
        );
        assert_eq!(told(1142, "SELECT command denied"), None);
    }
}
