//! Rows as the text that LOAD DATA reads (FORMAT.md §6.2): what parts hold, and what is loaded from one server into another.

use crate::wire::RowSink;

/// Which bytes LOAD DATA would misread.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    let special = b"\\\t\n\0\r";
    while i < special.len() {
        table[special[i] as usize] = true;
        i += 1;
    }
    table
};

/// Fields end with a tab, lines with a newline, `\N` is NULL; what would be misread is escaped. Take the text whenever it is enough.
#[derive(Debug, Default)]
pub struct RowText {
    /// What was not taken yet.
    pub text: Vec<u8>,
    /// Rows that have ended.
    pub rows: u64,
    in_line: bool,
}

impl RowText {
    fn separate(&mut self) {
        if std::mem::replace(&mut self.in_line, true) {
            self.text.push(b'\t');
        }
    }
}

impl RowSink for RowText {
    fn row_begin(&mut self) {
        self.in_line = false;
    }

    fn null(&mut self) {
        self.separate();
        self.text.extend_from_slice(b"\\N");
    }

    fn cell(&mut self, _len_bytes: u64) {
        self.separate();
    }

    fn data(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
            let (plain, special) = rest.split_at(at);
            self.text.extend_from_slice(plain);
            self.text.push(b'\\');
            self.text.push(match special[0] {
                b'\t' => b't',
                b'\n' => b'n',
                b'\r' => b'r',
                0 => b'0',
                other => other,
            });
            rest = &special[1..];
        }
        self.text.extend_from_slice(rest);
    }

    fn row_end(&mut self) {
        self.text.push(b'\n');
        self.rows += 1;
    }
}
