//! Names of database objects, and the only place where names and values are quoted into SQL.
//!
//! Everything that comes from a server or a manifest reaches a statement through [`quote_identifier`] or
//! [`quote_text`]; names are never put into comments.

use serde::{Deserialize, Serialize};

/// Longest name in bytes that we accept: 64 characters (the servers' limit), each at most four bytes of UTF-8.
const MAX_NAME_BYTES: usize = 256;

/// Schemas that belong to the server. `mysql` holds accounts and settings, the others are views of the running server.
const SYSTEM_SCHEMAS: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a name is empty")]
    Empty,
    /// Longer than any server allows.
    #[error("a name has {0} bytes, more than 64 characters can have")]
    TooLong(usize),
    /// Contains the one character that no server allows.
    #[error("a name contains a NUL character")]
    Nul,
}

fn checked(name: String) -> Result<String, NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        n if n > MAX_NAME_BYTES => Err(NameError::TooLong(n)),
        _ if name.contains('\0') => Err(NameError::Nul),
        _ => Ok(name),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes a name as the server gives it, without quotes.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                checked(name.into()).map(Self)
            }

            /// The name without quotes, for comparing and showing; never for SQL.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as SQL.
            pub fn quoted(&self) -> String {
                quote_identifier(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&quote_identifier(&self.0))
            }
        }
    };
}

name_type! {
    /// Name of a schema (a "database").
    SchemaName
}
name_type! {
    /// Name of an object inside a schema or table: table, view, sequence, trigger, routine, event, column, key.
    ObjectName
}

impl SchemaName {
    /// Whether the schema is the server's own and so never part of a backup as data.
    pub fn is_system(&self) -> bool {
        is_system_schema(&self.0)
    }
}

/// Whether `name` is one of `mysql`, `information_schema`, `performance_schema`, `sys`.
pub fn is_system_schema(name: &str) -> bool {
    SYSTEM_SCHEMAS
        .iter()
        .any(|system| system.eq_ignore_ascii_case(name))
}

/// A table, view, sequence, routine … in its schema. Displayed as quoted SQL, which is unambiguous for people too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableName {
    /// The schema it lives in.
    pub schema: SchemaName,
    /// Its own name.
    pub name: ObjectName,
}

impl TableName {
    /// From two names as the server gives them, without quotes.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self {
            schema: SchemaName::new(schema)?,
            name: ObjectName::new(name)?,
        })
    }

    /// `` `schema`.`name` `` as SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", self.schema.quoted(), self.name.quoted())
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.quoted())
    }
}

/// `schema.table` as an operator writes it; either may be `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    /// The schema, or `*`.
    pub schema: String,
    /// The table, or `*`.
    pub table: String,
}

impl std::str::FromStr for TablePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(Self {
                schema: schema.to_owned(),
                table: table.to_owned(),
            }),
            _ => Err(format!(
                "`{text}` is not SCHEMA.TABLE, such as shop.orders or 'shop.*'"
            )),
        }
    }
}

impl std::fmt::Display for TablePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TablePattern {
    /// Whether a table is meant; case does not matter.
    pub fn is(&self, schema: &str, table: &str) -> bool {
        let fits = |pattern: &str, name: &str| pattern == "*" || pattern.eq_ignore_ascii_case(name);
        fits(&self.schema, schema) && fits(&self.table, table)
    }

    /// Whether it stands for this table and no other.
    pub fn is_one(&self, table: &TableName) -> bool {
        self.schema != "*" && self.table != "*" && self.is(table.schema.as_str(), table.name.as_str())
    }
}

/// Quotes an identifier with backticks, which mean an identifier under every sql_mode.
pub fn quote_identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for c in name.chars() {
        if c == '`' {
            quoted.push('`');
        }
        quoted.push(c);
    }
    quoted.push('`');
    quoted
}

/// Quotes text as a string literal for a session whose sql_mode lacks NO_BACKSLASH_ESCAPES (all of ours do).
pub fn quote_text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            _ => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// Whether `word` may stand in SQL unquoted where the grammar wants a bare word: a character set, collation or engine.
pub fn is_bare_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted_whatever_they_hold() {
        assert_eq!(quote_identifier("a"), "`a`");
        assert_eq!(quote_identifier("a`b"), "`a``b`");
        assert_eq!(quote_identifier("`"), "````");
        assert_eq!(
            quote_identifier("x`; DROP DATABASE y; -- "),
            "`x``; DROP DATABASE y; -- `"
        );
        assert_eq!(TableName::new("a.b", "c\n*/").unwrap().quoted(), "`a.b`.`c\n*/`");
    }

    #[test]
    fn text_is_quoted_whatever_it_holds() {
        assert_eq!(quote_text("it's"), "'it''s'");
        assert_eq!(quote_text("\\'"), "'\\\\'''");
        assert_eq!(quote_text("\0"), "'\\0'");
    }

    #[test]
    fn impossible_names_are_refused_also_when_they_come_from_a_manifest() {
        assert_eq!(ObjectName::new(""), Err(NameError::Empty));
        assert_eq!(ObjectName::new("a\0b"), Err(NameError::Nul));
        assert_eq!(ObjectName::new("é".repeat(200)), Err(NameError::TooLong(400)));
        assert!(ObjectName::new("é".repeat(64)).is_ok());
        assert!(serde_json::from_str::<TableName>(r#"{"schema": "a", "name": "b\u0000"}"#).is_err());
        let name = TableName::new("a`", "ü").unwrap();
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<TableName>(&json).unwrap(), name);
    }

    #[test]
    fn system_schemas_are_known_in_any_case() {
        assert!(
            is_system_schema("mysql") && is_system_schema("SYS") && is_system_schema("INFORMATION_SCHEMA")
        );
        assert!(!is_system_schema("mysql2") && !is_system_schema("test"));
    }
}
