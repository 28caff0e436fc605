//! Text queries: sending one and reading its whole answer, bounded.
//!
//! Source: protocol pages "COM_QUERY Response", "Text Resultset", "OK_Packet", "EOF_Packet".

use super::connection::command;
use super::fields::Fields;
use super::rows::Column;
use super::{Connection, RowStream, Rows, WireError, error};

/// What a whole result may take in memory.
const RESULT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What is read and thrown away of rows that nobody asked for.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest OK, ERR, column definition or file request.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Both families allow at most 4096 columns in a table and in a select list.
const COLUMNS_MAX: u64 = 4096;
/// An EOF packet is shorter than this; a row that begins with `fe` is longer than 16 MiB.
pub(super) const EOF_BYTES_MAX: usize = 8;
const STATUS_MORE_RESULTS: u16 = 8;

/// What a statement without rows, or the end of rows, reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// Rows changed, by the server's count.
    pub affected_rows: u64,
    /// First value generated for an AUTO_INCREMENT column.
    pub last_insert_id: u64,
    /// How many warnings were raised.
    pub warnings: u16,
    /// The server's text, such as `Records: 3  Duplicates: 0  Warnings: 0`.
    pub info: String,
}

impl Completion {
    /// Reads an OK packet.
    pub(super) fn parse_ok(packet: &[u8]) -> Result<Completion, WireError> {
        let mut fields = Fields::new(packet);
        fields.u8()?;
        let (affected_rows, last_insert_id) = (fields.lenenc()?, fields.lenenc()?);
        let (status, warnings) = (fields.u16()?, fields.u16()?);
        refuse_more_results(status)?;
        // Documented as the rest of the packet, sent as a length-encoded string.
        let mut info = fields;
        let info = match info.lenenc_bytes() {
            Ok(text) if info.is_empty() => text,
            _ => fields.rest(),
        };
        Ok(Completion {
            affected_rows,
            last_insert_id,
            warnings,
            info: error::clean(info),
        })
    }

    /// Reads an EOF packet.
    pub(super) fn parse_eof(packet: &[u8]) -> Result<Completion, WireError> {
        let mut fields = Fields::new(packet);
        fields.u8()?;
        let (warnings, status) = (fields.u16()?, fields.u16()?);
        refuse_more_results(status)?;
        Ok(Completion {
            warnings,
            ..Completion::default()
        })
    }
}

/// We never announce that we understand several results to one statement.
fn refuse_more_results(status: u16) -> Result<(), WireError> {
    match status & STATUS_MORE_RESULTS {
        0 => Ok(()),
        _ => Err(WireError::protocol("several results to one statement")),
    }
}

/// The first packet of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    Done(Completion),
    Columns(Vec<Column>),
    /// The server asks for a local file of this name.
    LocalFile(Vec<u8>),
}

impl Connection {
    /// Runs a statement that returns no rows.
    ///
    /// # Errors
    /// `Server` if it fails; `Result` if it returns rows (they are read and dropped); connection errors.
    pub async fn execute(&mut self, sql: impl AsRef<[u8]>) -> Result<Completion, WireError> {
        let sql = sql.as_ref();
        self.send_command(command::QUERY, &[sql]).await?;
        match self.answer_without_file().await? {
            Answer::Done(completion) => Ok(completion),
            Answer::Columns(columns) => {
                self.drain_rows().await?;
                let shape = Rows::new(columns, sql);
                Err(shape.unexpected("rows where none were expected"))
            }
            Answer::LocalFile(_) => Err(WireError::protocol("a file request")),
        }
    }

    /// Runs a statement and holds its rows, at most 256 MiB of them. A statement without rows gives none.
    ///
    /// # Errors
    /// `Server`, `TooLarge`, connection errors.
    pub async fn query(&mut self, sql: impl AsRef<[u8]>) -> Result<Rows, WireError> {
        let sql = sql.as_ref();
        self.send_command(command::QUERY, &[sql]).await?;
        let columns = match self.answer_without_file().await? {
            Answer::Columns(columns) => columns,
            Answer::Done(_) | Answer::LocalFile(_) => return Ok(Rows::new(Vec::new(), sql)),
        };
        let mut rows = Rows::new(columns, sql);
        let mut held_bytes = 0;
        loop {
            let packet = self.reader.packet(RESULT_BYTES_MAX - held_bytes).await?;
            if let Some(end) = end_of_rows(packet) {
                // Even if the server reports an error, the answer is over.
                self.finish_command();
                rows.warnings = end?.warnings;
                return Ok(rows);
            }
            held_bytes += rows.push(packet)?;
            if held_bytes > RESULT_BYTES_MAX {
                return Err(WireError::TooLarge {
                    what: "a result",
                    limit_bytes: RESULT_BYTES_MAX as u64,
                });
            }
        }
    }

    /// Runs a statement and hands its rows out as they arrive. Dropping the stream before its end makes the
    /// connection unusable.
    ///
    /// # Errors
    /// `Server`, connection errors.
    pub async fn query_stream(&mut self, sql: impl AsRef<[u8]>) -> Result<RowStream<'_>, WireError> {
        let sql = sql.as_ref();
        self.send_command(command::QUERY, &[sql]).await?;
        match self.answer_without_file().await? {
            Answer::Columns(columns) => Ok(RowStream::new(self, columns)),
            Answer::Done(completion) => Ok(RowStream::ended(self, completion)),
            Answer::LocalFile(_) => Err(WireError::protocol("a file request")),
        }
    }

    /// The beginning of an answer, where a request for a file is an attack: the connection is dropped.
    async fn answer_without_file(&mut self) -> Result<Answer, WireError> {
        match self.answer().await? {
            Answer::LocalFile(name) => Err(self.refuse_file(&name).await),
            answer => Ok(answer),
        }
    }

    pub(super) async fn refuse_file(&mut self, name: &[u8]) -> WireError {
        let name: String = error::clean(name).chars().take(80).collect();
        self.abandon(format!(
            "the server asked for the local file {name:?}, which we did not offer"
        ))
        .await
    }

    /// The beginning of an answer: OK, an error, a request for a file, or all column definitions.
    pub(super) async fn answer(&mut self) -> Result<Answer, WireError> {
        let packet = self.reader.packet(ANSWER_BYTES_MAX).await?;
        match packet {
            [0, ..] => {
                let completion = Completion::parse_ok(packet)?;
                self.finish_command();
                Ok(Answer::Done(completion))
            }
            [0xff, ..] => {
                let error = WireError::from_err_packet(packet);
                if matches!(error, WireError::Server { .. }) {
                    self.finish_command();
                }
                Err(error)
            }
            [0xfb, name @ ..] => Ok(Answer::LocalFile(name.to_vec())),
            _ => {
                let mut fields = Fields::new(packet);
                let count = fields.lenenc()?;
                if !fields.is_empty() || count == 0 || count > COLUMNS_MAX {
                    return Err(WireError::protocol(format!("a result of {count} columns")));
                }
                Ok(Answer::Columns(self.column_definitions(count).await?))
            }
        }
    }

    async fn column_definitions(&mut self, count: u64) -> Result<Vec<Column>, WireError> {
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(Column::parse(self.reader.packet(ANSWER_BYTES_MAX).await?)?);
        }
        match self.reader.packet(ANSWER_BYTES_MAX).await? {
            packet @ [0xfe, ..] if packet.len() <= EOF_BYTES_MAX => Ok(columns),
            _ => Err(WireError::protocol("column definitions without an end")),
        }
    }

    async fn drain_rows(&mut self) -> Result<(), WireError> {
        let mut left_bytes = DRAIN_BYTES_MAX;
        loop {
            let packet = self.reader.packet(left_bytes).await?;
            if let Some(end) = end_of_rows(packet) {
                self.finish_command();
                return end.map(|_| ());
            }
            // An empty packet is no row; counting it keeps an endless stream of them finite.
            left_bytes = left_bytes.saturating_sub(packet.len().max(1));
        }
    }
}

/// Whether a whole packet among rows ends them, and how.
pub(super) fn end_of_rows(packet: &[u8]) -> Option<Result<Completion, WireError>> {
    match packet {
        [0xff, ..] => Some(Err(WireError::from_err_packet(packet))),
        [0xfe, ..] if packet.len() <= EOF_BYTES_MAX => Some(Completion::parse_eof(packet)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ok_packets_with_both_forms_of_info() {
        let text = b"Records: 1";
        let plain = [&b"\x00\x03\xfc\x00\x01\x02\x00\x05\x00"[..], text].concat();
        let counted = [&b"\x00\x03\xfc\x00\x01\x02\x00\x05\x00\x0a"[..], text].concat();
        for packet in [plain, counted] {
            let ok = Completion::parse_ok(&packet).unwrap();
            assert_eq!((ok.affected_rows, ok.last_insert_id, ok.warnings), (3, 256, 5));
            assert_eq!(ok.info, "Records: 1");
        }
        assert!(
            Completion::parse_ok(b"\x00\x00\x00\x08\x00\x00\x00").is_err(),
            "more results"
        );
        assert!(Completion::parse_ok(b"\x00\x00\x00\x02").is_err(), "truncated");
    }

    #[test]
    fn what_ends_rows() {
        assert!(end_of_rows(b"\xfe\x00\x00\x02\x00").unwrap().is_ok());
        assert!(end_of_rows(b"\xff\x10\x04#08S01gone").unwrap().is_err());
        assert!(
            end_of_rows(b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00").is_none(),
            "a cell of 16 MiB"
        );
        assert!(end_of_rows(b"\x01a").is_none());
        assert!(end_of_rows(b"").is_none());
    }
}
