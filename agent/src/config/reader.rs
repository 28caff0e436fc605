//! Reads TOML so that every problem is found in one go, each with its line and, for a misspelt key, a suggestion.
//!
//! A section hands out its values by key; whatever nobody asked for is an unknown key and refused, because in a backup
//! tool the misspelt key may be the retention or the encryption.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The line it is about, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.text),
            line => write!(f, "line {line}: {}", self.text),
        }
    }
}

/// Where problems are gathered while a file is read.
#[derive(Clone)]
struct Problems {
    text: Rc<str>,
    found: Rc<RefCell<Vec<ConfigProblem>>>,
}

impl Problems {
    fn add_at(&self, offset: usize, text: String) {
        let line = self
            .text
            .get(..offset)
            .map_or(1, |before| before.matches('\n').count() + 1);
        self.found.borrow_mut().push(ConfigProblem { line, text });
    }
}

/// One table of the file. Ask for every key it may have, then call [`Section::finish`].
pub struct Section<'a> {
    name: String,
    table: Option<&'a DeTable<'a>>,
    offset: usize,
    asked: RefCell<Vec<String>>,
    problems: Problems,
    folder: &'a Path,
}

/// Parses `text` and gives its root section to `read`; returns what `read` made, or every problem, by line.
pub fn read<T>(
    text: &str,
    folder: &Path,
    read: impl for<'a> FnOnce(&Section<'a>) -> Option<T>,
) -> Result<T, Vec<ConfigProblem>> {
    let problems = Problems {
        text: text.into(),
        found: Rc::default(),
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            problems.add_at(
                error.span().map_or(0, |span| span.start),
                error.message().to_string(),
            );
            return Err(problems.found.take());
        }
    };
    let root = Section {
        name: String::new(),
        offset: 0,
        table: Some(table.get_ref()),
        asked: RefCell::default(),
        problems: problems.clone(),
        folder,
    };
    let value = read(&root);
    root.finish();
    let mut found = problems.found.take();
    found.sort_by_key(|problem| problem.line);
    match value {
        Some(value) if found.is_empty() => Ok(value),
        _ => Err(found),
    }
}

impl<'a> Section<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    fn wrong(&self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        self.problems.add_at(
            value.span().start,
            format!("`{}` must be {wanted}", self.path_of(key)),
        );
    }

    /// Reports a problem with the value of `key`.
    pub fn problem(&self, key: &str, text: &str) {
        let offset = self
            .table
            .and_then(|table| table.get(key))
            .map_or(self.offset, |value| value.span().start);
        self.problems
            .add_at(offset, format!("`{}` {text}", self.path_of(key)));
    }

    /// Allows a key without looking at its value.
    pub fn pass_over(&self, key: &str) {
        self.asked.borrow_mut().push(key.to_owned());
    }

    /// Whether the section stands in the file at all.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The section called `key`; an absent one has no values.
    pub fn section(&self, key: &str) -> Section<'a> {
        let found = self.get(key);
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong(value, key, "a section");
                None
            }
        });
        self.child(
            self.path_of(key),
            table,
            found.map_or(self.offset, |value| value.span().start),
        )
    }

    fn child(&self, name: String, table: Option<&'a DeTable<'a>>, offset: usize) -> Section<'a> {
        Section {
            name,
            table,
            offset,
            asked: RefCell::default(),
            problems: self.problems.clone(),
            folder: self.folder,
        }
    }

    /// The sections of the array of sections called `key`.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(value, key, "an array of sections: write [[…]]");
            return Vec::new();
        };
        let tables = array.iter().filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(self.child(self.path_of(key), Some(table), item.span().start)),
            _ => {
                self.wrong(item, key, "a section");
                None
            }
        });
        tables.collect()
    }

    /// Text.
    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            _ => {
                self.wrong(value, key, "text in quotes, not empty");
                None
            }
        }
    }

    /// A list of texts; none where the key is not there.
    pub fn texts(&self, key: &str) -> Vec<String> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let texts = match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.wrong(value, key, "a list of texts in quotes, [\"…\"]");
            Vec::new()
        })
    }

    /// Text that must be there.
    pub fn required_text(&self, key: &str) -> Option<String> {
        self.require(key, self.text(key))
    }

    fn require<T>(&self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.table.is_none_or(|table| !table.contains_key(key)) {
            self.problems
                .add_at(self.offset, format!("`{}` is missing", self.path_of(key)));
        }
        value
    }

    /// A path, relative to the file's folder. `credential:NAME` is a systemd credential.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let Some(name) = text.strip_prefix("credential:") else {
            return Some(self.folder.join(text));
        };
        credential(name, std::env::var_os("CREDENTIALS_DIRECTORY"))
            .map_err(|wrong| self.problem(key, wrong))
            .ok()
    }

    /// A path that must be there.
    pub fn required_path(&self, key: &str) -> Option<PathBuf> {
        self.require(key, self.path(key))
    }

    /// true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong(value, key, "true or false");
                None
            }
        }
    }

    /// A whole number within a range.
    pub fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => {
                u64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                    .ok()
                    .filter(|n| range.contains(n))
            }
            _ => None,
        };
        if number.is_none() {
            self.wrong(
                value,
                key,
                &format!("a whole number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    /// A span of time written with its unit: `"1s"`, `"500ms"`, `"5m"`, `"24h"`, `"30d"`.
    pub fn duration(&self, key: &str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.get(key)?;
        let duration = match value.get_ref() {
            DeValue::String(text) => parse_duration(text).filter(|d| range.contains(d)),
            _ => None,
        };
        if duration.is_none() {
            let wanted = format!(
                "a time with its unit, like \"10s\" or \"5m\", from {:?} to {:?}",
                range.start(),
                range.end()
            );
            self.wrong(value, key, &wanted);
        }
        duration
    }

    /// A size written with its unit: `"512 MiB"`, `"10 GiB"`.
    pub fn bytes(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let bytes = match value.get_ref() {
            DeValue::String(text) => parse_bytes(text).filter(|b| range.contains(b)),
            _ => None,
        };
        if bytes.is_none() {
            let (low, high) = (
                crate::words::bytes(*range.start()),
                crate::words::bytes(*range.end()),
            );
            self.wrong(
                value,
                key,
                &format!("a size with its unit, like \"512 MiB\", from {low} to {high}"),
            );
        }
        bytes
    }

    /// Refuses every key that was not asked for.
    pub fn finish(&self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for key in table
            .keys()
            .filter(|key| !asked.iter().any(|a| a == key.get_ref().as_ref()))
        {
            let name: &str = key.get_ref();
            let near = asked
                .iter()
                .map(|a| (distance(a, name), a))
                .min()
                .filter(|(d, _)| *d <= 3);
            let suggestion = match near {
                Some((_, near)) => format!("; did you mean `{near}`?"),
                None => format!("; known here: {}", asked.join(", ")),
            };
            self.problems.add_at(
                key.span().start,
                format!("`{}` is not known{suggestion}", self.path_of(name)),
            );
        }
    }
}

/// Where the systemd credential `name` lies; `folder` is where systemd puts this process's.
fn credential(name: &str, folder: Option<OsString>) -> Result<PathBuf, &'static str> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("must name a systemd credential, like \"credential:holdfast.password\"");
    }
    match folder {
        Some(folder) if !folder.is_empty() => Ok(Path::new(&folder).join(name)),
        _ => Err(
            "names a systemd credential, and $CREDENTIALS_DIRECTORY is not set: only systemd gives them to its service",
        ),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "B" => 1,
        "KiB" => 1u64 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The edit distance between two short keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_found_at_once_with_its_line() {
        let text = "cluster = \"shop\"\nretenton = 5\n\n[source]\nport = \"x\"\nflush = \"1 parsec\"\n";
        let found = read(text, Path::new("/"), |root| {
            root.text("cluster");
            root.number("retention", 0..=9);
            let source = root.section("source");
            source.number("port", 1..=65_535);
            source.duration("flush", Duration::ZERO..=Duration::MAX);
            source.required_text("user");
            source.finish();
            Some(())
        })
        .unwrap_err();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(
            found[0],
            "line 2: `retenton` is not known; did you mean `retention`?"
        );
        assert!(
            found[1].starts_with("line 4: `source.user` is missing"),
            "{}",
            found[1]
        );
        assert!(
            found[2].starts_with("line 5: `source.port` must be a whole number"),
            "{}",
            found[2]
        );
        assert!(
            found[3].starts_with("line 6: `source.flush` must be a time with its unit"),
            "{}",
            found[3]
        );
    }

    #[test]
    fn credentials_are_where_systemd_puts_them() {
        let folder = || Some(OsString::from("/run/credentials/holdfast.service"));
        assert_eq!(
            credential("holdfast.password", folder()).unwrap(),
            Path::new("/run/credentials/holdfast.service/holdfast.password")
        );
        for outside in ["", "/etc/shadow", "../shadow", "a/b", ".."] {
            assert!(credential(outside, folder()).is_err(), "{outside}");
        }
        for none in [None, Some(OsString::new())] {
            let wrong = credential("holdfast.password", none).unwrap_err();
            assert!(wrong.contains("$CREDENTIALS_DIRECTORY is not set"), "{wrong}");
        }
        // No test is a service: the problem has its line and key.
        let found = read("\nsecret = \"credential:x\"\n", Path::new("/"), |root| {
            root.path("secret")
        });
        let found = found.unwrap_err()[0].to_string();
        assert!(
            found.starts_with("line 2: `secret` names a systemd credential"),
            "{found}"
        );
    }

    #[test]
    fn units_are_required_and_exact() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_bytes("10 GiB"), Some(10 << 30));
        for bad in ["5", "", "s", "-5s", "5 minutes", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
