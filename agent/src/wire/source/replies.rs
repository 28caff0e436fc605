//! The packets that answer a replica: OK, ERR, and small results of the text protocol.

use crate::wire::fields::put_lenenc_bytes;

/// A server's own limit for messages.
const MESSAGE_BYTES_MAX: usize = 500;
const TYPE_VAR_STRING: u8 = 0xfd;
const EOF: [u8; 5] = [0xfe, 0, 0, 2, 0];

/// An OK packet: nothing affected, autocommit, no warnings.
pub(super) fn ok() -> Vec<u8> {
    vec![0, 0, 0, 2, 0, 0, 0]
}

/// An ERR packet. `state` has five characters.
pub(super) fn error(code: u16, state: &str, message: &str) -> Vec<u8> {
    let mut out = vec![0xff];
    out.extend(code.to_le_bytes());
    out.push(b'#');
    out.extend(state.bytes());
    let clean = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    for c in clean {
        if out.len() + c.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        out.extend(c.encode_utf8(&mut [0; 4]).bytes());
    }
    out
}

/// The packets of a result with one row. Replicas do not look at the types.
pub(super) fn row(columns: &[(&str, &str)]) -> Vec<Vec<u8>> {
    let mut packets = vec![vec![u8::try_from(columns.len()).expect("a handful of columns")]];
    for (name, _) in columns {
        let mut column = Vec::new();
        put_lenenc_bytes(&mut column, b"def");
        column.extend([0, 0, 0]); // database, table, original table
        put_lenenc_bytes(&mut column, name.as_bytes());
        column.push(0); // original name
        column.push(0x0c); // length of what follows
        column.extend(33u16.to_le_bytes()); // utf8
        column.extend(256u32.to_le_bytes());
        column.push(TYPE_VAR_STRING);
        column.extend([0, 0, 0x1f, 0, 0]); // flags, decimals, filler
        packets.push(column);
    }
    packets.push(EOF.to_vec());
    let mut row = Vec::new();
    for (_, value) in columns {
        put_lenenc_bytes(&mut row, value.as_bytes());
    }
    packets.push(row);
    packets.push(EOF.to_vec());
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_clean_and_bounded() {
        let packet = error(1236, "HY000", &"é\n".repeat(1000));
        assert_eq!(&packet[..9], b"\xff\xd4\x04#HY000");
        assert!(packet.len() <= MESSAGE_BYTES_MAX && packet.len() > 490);
        assert!(!packet.contains(&b'\n'));
        assert!(str::from_utf8(&packet[9..]).is_ok());
    }
}
