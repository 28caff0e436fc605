//! Reading and writing the field types inside packets, every length checked.
//!
//! Source: protocol pages "Integer Types" and "String Types". All integers are little-endian.

use super::WireError;

/// A cursor over one packet; every read past its end is an error.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first byte of `packet`.
    pub fn new(packet: &'a [u8]) -> Fields<'a> {
        Fields { rest: packet }
    }

    /// Bytes not read yet.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(WireError::protocol(format!(
                "a packet ends {} bytes too early",
                count - self.rest.len()
            ))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, WireError> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-encoded integer. `fb` (NULL) and `ff` are not integers and are errors.
    pub fn lenenc(&mut self) -> Result<u64, WireError> {
        match self.u8()? {
            n @ 0..=0xfa => Ok(n.into()),
            0xfc => Ok(self.u16()?.into()),
            0xfd => Ok(self.u24()?.into()),
            0xfe => self.u64(),
            other => Err(WireError::protocol(format!(
                "{other:#04x} where a length-encoded integer belongs"
            ))),
        }
    }

    /// A length-encoded string.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.lenenc()?;
        let length = usize::try_from(length)
            .map_err(|_| WireError::protocol(format!("a string of {length} bytes inside a packet")))?;
        self.bytes(length)
    }

    /// A string up to a NUL byte, which is consumed and not returned.
    pub fn nul_terminated(&mut self) -> Result<&'a [u8], WireError> {
        let end = self.rest.iter().position(|b| *b == 0);
        let end = end.ok_or_else(|| WireError::protocol("a string without its terminating NUL"))?;
        let bytes = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(bytes)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Appends a length-encoded integer.
pub fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.push(bytes[0]),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenenc_round_trips_at_every_boundary() {
        for value in [0, 0xfa, 0xfb, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000, u64::MAX] {
            let mut out = Vec::new();
            put_lenenc(&mut out, value);
            let mut fields = Fields::new(&out);
            assert_eq!(fields.lenenc().unwrap(), value);
            assert!(fields.is_empty());
        }
    }

    #[test]
    fn every_read_past_the_end_is_an_error() {
        assert!(Fields::new(b"\xfc\x01").lenenc().is_err());
        assert!(Fields::new(b"\xfb").lenenc().is_err());
        assert!(Fields::new(b"\xff").lenenc().is_err());
        assert!(Fields::new(b"\x05abcd").lenenc_bytes().is_err());
        assert!(
            Fields::new(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffx")
                .lenenc_bytes()
                .is_err()
        );
        assert!(Fields::new(b"abc").nul_terminated().is_err());
        assert!(Fields::new(b"").u8().is_err());
    }
}
