//! The settings of the session that ran a statement, which travel with it.
//!
//! Sources: "Query_event" in MySQL's internals documentation, and what real servers wrote under each setting.

use crate::wire::WireError;
use crate::wire::fields::Fields;

/// Bits of [`SessionSettings::flags`], as both families number them.
pub mod session_flags {
    /// `sql_auto_is_null`.
    pub const AUTO_IS_NULL: u32 = 1 << 14;
    /// `check_constraint_checks` is off (MariaDB).
    pub const NO_CHECK_CONSTRAINTS: u32 = 1 << 15;
    /// `explicit_defaults_for_timestamp` (MariaDB).
    pub const EXPLICIT_TIMESTAMP: u32 = 1 << 24;
    /// `foreign_key_checks` is off.
    pub const NO_FOREIGN_KEYS: u32 = 1 << 26;
    /// `unique_checks` is off.
    pub const NO_UNIQUE: u32 = 1 << 27;
    /// `sql_if_exists` (MariaDB).
    pub const IF_EXISTS: u32 = 1 << 28;
    /// `system_versioning_insert_history` (MariaDB).
    pub const INSERT_HISTORY: u32 = 1 << 30;
}

/// See the module. What an event does not say is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionSettings<'a> {
    /// See [`session_flags`].
    pub flags: Option<u32>,
    /// The bits of its sql_mode.
    pub sql_mode: Option<u64>,
    /// `auto_increment_increment` and `auto_increment_offset`.
    pub auto_increment: Option<(u16, u16)>,
    /// The numbers (of collations) of `character_set_client`, `collation_connection` and `collation_server`.
    pub character_sets: Option<(u16, u16, u16)>,
    /// Its time zone.
    pub time_zone: Option<&'a [u8]>,
    /// The number of its `lc_time_names`.
    pub time_names: Option<u16>,
    /// Microseconds behind the event's second.
    pub microseconds: Option<u32>,
    /// `explicit_defaults_for_timestamp` (MySQL).
    pub explicit_timestamp: Option<bool>,
    /// The number of `default_collation_for_utf8mb4` (MySQL).
    pub utf8mb4_collation: Option<u16>,
    /// Whose statement it is, as user and host, where that makes a difference.
    pub invoker: Option<(&'a [u8], &'a [u8])>,
    /// `default_table_encryption` (MySQL).
    pub table_encryption: Option<bool>,
    /// MariaDB's default collations of character sets: pairs of numbers, a character set's (of one of its collations) and a collation's.
    pub collations: &'a [u8],
    /// A setting that is not known: nothing behind it was read.
    pub unknown: Option<u8>,
}

impl<'a> SessionSettings<'a> {
    /// Reads all that is understood.
    pub(super) fn parse(stored: &'a [u8]) -> Self {
        let mut settings = Self::default();
        let mut fields = Fields::new(stored);
        while let Ok(code) = fields.u8() {
            if settings.read(code, &mut fields).is_err() {
                settings.unknown = Some(code);
                break;
            }
        }
        settings
    }

    fn read(&mut self, code: u8, fields: &mut Fields<'a>) -> Result<(), WireError> {
        match code {
            0 => self.flags = Some(fields.u32()?),
            1 => self.sql_mode = Some(fields.u64()?),
            3 => self.auto_increment = Some((fields.u16()?, fields.u16()?)),
            4 => self.character_sets = Some((fields.u16()?, fields.u16()?, fields.u16()?)),
            5 => self.time_zone = Some(counted(fields)?),
            7 => self.time_names = Some(fields.u16()?),
            13 | 128 => self.microseconds = Some(fields.u24()?),
            16 => self.explicit_timestamp = Some(fields.u8()? != 0),
            18 => self.utf8mb4_collation = Some(fields.u16()?),
            20 => self.table_encryption = Some(fields.u8()? != 0),
            // The catalog; a database's collation, and whether tables need a key, which statements say themselves; for replicas and
            // statistics: tables of a multi-table update, a length, databases that change, transaction numbers.
            6 => drop(counted(fields)?),
            8 => drop(fields.u16()?),
            9 | 17 | 129 => drop(fields.u64()?),
            10 => drop(fields.u32()?),
            11 => self.invoker = Some((counted(fields)?, counted(fields)?)),
            12 => databases(fields)?,
            // The last of these stands before statements that change rows, on MySQL 9.7: who minds foreign keys, the server or its engine.
            19 | 21 => drop(fields.u8()?),
            131 => {
                let count = usize::from(fields.u8()?);
                self.collations = fields.bytes(4 * count)?;
            }
            _ => return Err(WireError::protocol("an unknown setting")),
        }
        Ok(())
    }
}

fn counted<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], WireError> {
    let length = fields.u8()?;
    fields.bytes(length.into())
}

/// The databases that a statement changes, unless they are too many to be named.
fn databases(fields: &mut Fields<'_>) -> Result<(), WireError> {
    const TOO_MANY: u8 = 254;
    match fields.u8()? {
        TOO_MANY => Ok(()),
        count => (0..count).try_for_each(|_| fields.nul_terminated().map(drop)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_real_servers_wrote_is_read() {
        // MySQL 9.7: `CREATE VIEW` under foreign_key_checks=0.
        let stored = b"\0\0\0\0\x04\x01\x20\0\xa0\x45\0\0\0\0\x06\x03std\x04\xff\0\xff\0\xff\0\x0b\x04root\x09localhost\
            \x0c\x01d\0\x11\x71\0\0\0\0\0\0\0\x12\xff\0";
        let settings = SessionSettings::parse(stored);
        assert_eq!(settings.flags, Some(session_flags::NO_FOREIGN_KEYS));
        assert_eq!(settings.sql_mode, Some(0x45a0_0020));
        assert_eq!(settings.character_sets, Some((255, 255, 255)));
        assert_eq!((settings.utf8mb4_collation, settings.unknown), (Some(255), None));
        assert_eq!(settings.invoker, Some((&b"root"[..], &b"localhost"[..])));
        // MariaDB 10.11: a trigger; 11.5 and later may tell default collations first.
        let stored = b"\x83\x01\x2d\0\x2e\0\0\0\0\0\x01\x01\0\0\x20\x54\0\0\0\0\x06\x03std\x04\x2d\0\x2d\0\x08\0\x80\x9a\x1f\x0c\
            \x81\x43\0\0\0\0\0\0\0";
        let settings = SessionSettings::parse(stored);
        assert_eq!(settings.flags, Some(session_flags::EXPLICIT_TIMESTAMP));
        assert_eq!(settings.character_sets, Some((45, 45, 8)));
        assert_eq!((settings.microseconds, settings.unknown), (Some(794_522), None));
    }

    #[test]
    fn what_is_not_known_or_cut_is_said() {
        assert_eq!(SessionSettings::parse(b"\x63\x01").unknown, Some(0x63));
        assert_eq!(SessionSettings::parse(b"\x05\x06SYS").unknown, Some(5));
        let before = SessionSettings::parse(b"\x05\x06SYSTEM\x82\0\0");
        assert_eq!(
            (before.time_zone, before.unknown),
            (Some(&b"SYSTEM"[..]), Some(0x82))
        );
        assert_eq!(SessionSettings::parse(b"").unknown, None);
        assert_eq!(SessionSettings::parse(b"\x12\xff\0\x15\0").unknown, None);
    }
}
