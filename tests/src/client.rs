//! SQL to a server through its own client program, so that no code of ours stands between a test and the truth.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::server::{Kind, Server};

impl Server {
    /// Runs statements; panics with the server's error.
    #[track_caller]
    pub fn sql(&self, statements: &str) {
        if let Err(error) = self.try_sql(statements) {
            panic!("{error}\nin: {}", shortened(statements));
        }
    }

    /// Runs statements; what the client printed, or its error message.
    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        let output = feed(&mut self.client(&["--skip-column-names"]), statements.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs statements; one that the server refuses does not keep the others from running.
    pub fn sql_as_far_as_it_goes(&self, statements: &str) {
        let _ = feed(&mut self.client(&["--force"]), statements.as_bytes());
    }

    /// Runs a script for the client program, byte for byte, with its commands (`DELIMITER`); panics with the error.
    #[track_caller]
    pub fn feed(&self, script: &[u8]) {
        if let Err(error) = feed(&mut self.client(&[]), script) {
            panic!("{error}");
        }
    }

    /// The rows of a query (or of several, one after the other), each a list of its columns as text. NULL reads as `NULL`.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Vec<String>> {
        match self.try_sql(query) {
            Ok(text) => text.lines().map(columns).collect(),
            Err(error) => panic!("{error}\nin: {}", shortened(query)),
        }
    }

    /// The first column of the only row of a query.
    #[track_caller]
    pub fn value(&self, query: &str) -> String {
        let mut rows = self.query(query);
        assert!(
            rows.len() == 1 && !rows[0].is_empty(),
            "{query}: one row expected, not {rows:?}"
        );
        rows.remove(0).remove(0)
    }

    /// The first row of a statement like SHOW REPLICA STATUS, as `(column, value)`; empty where there is no row.
    #[track_caller]
    pub fn named(&self, statement: &str) -> Vec<(String, String)> {
        let text = feed(&mut self.client(&[]), statement.as_bytes())
            .unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines().map(columns);
        match (lines.next(), lines.next()) {
            (Some(names), Some(values)) => names.into_iter().zip(values).collect(),
            _ => Vec::new(),
        }
    }

    /// The client program with options that connect it as `root` over the socket, in batch mode.
    pub fn client(&self, more: &[&str]) -> Command {
        let mut command = Command::new(client_program(self.kind()));
        command
            .arg("--no-defaults")
            .arg("--user=root")
            .arg(format!("--socket={}", self.socket().display()));
        command.args([
            "--batch",
            "--comments",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
            "--local-infile=1",
        ]);
        command.args(more);
        command
    }

    /// Opens a session that stays, as one connection, until it is dropped.
    pub fn session(&self) -> Session {
        Session::open(&mut self.client(&["--skip-column-names", "--unbuffered"]))
    }
}

fn client_program(kind: Kind) -> std::path::PathBuf {
    kind.program(if kind.is_mariadb() { "mariadb" } else { "mysql" })
}

/// One connection through a client program that is fed by a pipe.
#[derive(Debug)]
pub struct Session {
    client: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Session {
    fn open(command: &mut Command) -> Session {
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut client = spawned.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        match (client.stdin.take(), client.stdout.take()) {
            (Some(input), Some(output)) => Session {
                client,
                input,
                output: BufReader::new(output),
                asked: 0,
            },
            _ => panic!("the client has no pipes"),
        }
    }

    /// Runs statements and waits for them: their rows, or the error that ended the session.
    pub fn run(&mut self, statements: &str) -> Result<Vec<Vec<String>>, String> {
        self.asked += 1;
        let end = format!("end of answer {}", self.asked);
        let text = format!("{statements};\nSELECT '{end}';\n");
        if self
            .input
            .write_all(text.as_bytes())
            .and_then(|()| self.input.flush())
            .is_err()
        {
            return Err(self.error());
        }
        let mut rows = Vec::new();
        loop {
            let mut line = Vec::new();
            match self.output.read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(self.error()),
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\n');
            if line == end {
                return Ok(rows);
            }
            rows.push(columns(line));
        }
    }

    fn error(&mut self) -> String {
        let mut text = String::new();
        if let Some(errors) = &mut self.client.stderr {
            // What cannot be read cannot be shown; that the client ended is said in any case.
            let _ = errors.read_to_string(&mut text);
        }
        format!("the session ended: {text}")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Runs a client on `input`; its output, or its error message.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, String> {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut client = spawned.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let pipe = client.stdin.take();
    std::thread::scope(|scope| {
        // A client that stops at an error does not read the rest: the failed write shows in its exit status.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input)));
        let output = client.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
        }
    })
}

/// The columns of a line in the client's batch format: separated by tabs, with `\t`, `\n`, `\0` and `\\` escaped.
fn columns(line: &str) -> Vec<String> {
    line.split('\t').map(unescaped).collect()
}

fn unescaped(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('0') => plain.push('\0'),
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    plain
}

fn shortened(statements: &str) -> String {
    statements.chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn batch_format_is_undone() {
        assert_eq!(columns("a\\tb\t\\\\n\t\tx\\ny"), ["a\tb", "\\n", "", "x\ny"]);
    }
}
