//! Tables with every kind of key and generated values, made of a fixed seed.

use std::fmt::Write as _;

use holdfast_proto::Flavour;

/// A small generator with a fixed seed: failures repeat.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// What collations disagree on: case, accents, padding, contractions, expansions, what they ignore, order of scripts.
const LETTERS: &[&str] = &[
    "a", "A", "á", "Ä", "ae", "æ", "b", "B", "c", "ch", "Ch", "d", "dž", "i", "I", "ı", "İ", "ij", "l", "ll",
    "n", "ñ", "n\u{303}", "o", "ö", "ø", "oe", "s", "ss", "ß", "z", "Z", "ž", "å", "0", "9", "10", "_", "-",
    "!", "~", " ", "  ", "\t", "\n", "\0", "\u{301}", "\u{308}", "\u{200d}", "\u{ad}", "\u{feff}",
    "\u{fffd}", "я", "Я", "ё", "α", "Ω", "ς", "ก", "เก", "ア", "あ", "ー", "中", "文", "한", "ה", "ع", "क",
    "😀", "😁", "𝒜", "\\", "'", "%", "`",
];

fn text(numbers: &mut Numbers, letters_max: u64) -> String {
    let length = numbers.below(letters_max + 1);
    (0..length).map(|_| *numbers.pick(LETTERS)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("x'"), |mut sql, byte| {
        write!(sql, "{byte:02x}").unwrap();
        sql
    }) + "'"
}

fn text_sql(numbers: &mut Numbers, letters_max: u64) -> String {
    format!(
        "CONVERT({} USING utf8mb4)",
        hex(text(numbers, letters_max).as_bytes())
    )
}

fn bytes_sql(numbers: &mut Numbers, bytes_max: u64) -> String {
    let length = numbers.below(bytes_max + 1);
    let bytes: Vec<u8> = (0..length)
        .map(|_| *numbers.pick(&[0, 1, b' ', b'A', b'a', 0x7f, 0x80, 0xfe, 0xff]))
        .collect();
    hex(&bytes)
}

fn integer(numbers: &mut Numbers, bits: u32, unsigned: bool) -> String {
    let (min, max) = match unsigned {
        true => (0, (1i128 << bits) - 1),
        false => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
    };
    let near = i128::from(numbers.below(60));
    let value = match numbers.below(5) {
        0 => min + near,
        1 => max - near,
        2 => near,
        3 => -near,
        _ => min + i128::from(numbers.next()) % (max - min + 1),
    };
    value.clamp(min, max).to_string()
}

fn decimal(numbers: &mut Numbers, whole: u64, fraction: u64) -> String {
    let mut digits = |count: u64| -> String {
        let same = numbers.below(3);
        (0..count)
            .map(|_| match same {
                0 => '0',
                1 => '9',
                _ => char::from(b'0' + u8::try_from(numbers.below(10)).unwrap()),
            })
            .collect()
    };
    let (whole, fraction) = (digits(whole), digits(fraction));
    let sign = if numbers.below(2) == 0 { "-" } else { "" };
    format!("{sign}{whole}.{fraction}")
}

fn date(numbers: &mut Numbers) -> String {
    let days = [
        "2023-02-31",
        "2023-00-00",
        "2023-05-00",
        "0000-00-00",
        "9999-12-31",
        "1000-01-01",
        "2024-02-29",
    ];
    match numbers.below(3) {
        0 => (*numbers.pick(&days)).to_string(),
        _ => format!(
            "20{:02}-{:02}-{:02}",
            numbers.below(100),
            1 + numbers.below(12),
            1 + numbers.below(31)
        ),
    }
}

fn time_of_day(numbers: &mut Numbers) -> String {
    let fraction = *numbers.pick(&[0, 1, 999_999, 500_000, 123_456]);
    format!(
        "{:02}:{:02}:{:02}.{fraction:06}",
        numbers.below(24),
        numbers.below(60),
        numbers.below(60)
    )
}

fn timestamp(numbers: &mut Numbers) -> String {
    match numbers.below(6) {
        0 => "'0000-00-00 00:00:00'".to_string(),
        1 => "'2038-01-19 03:14:07.999999'".to_string(),
        2 => "'1970-01-01 00:00:01'".to_string(),
        // The hour that a clock in Berlin shows twice.
        3 => format!("'2023-10-29 0{}:{:02}:00.5'", numbers.below(3), numbers.below(60)),
        _ => format!(
            "'20{:02}-0{}-1{} {}'",
            numbers.below(38),
            1 + numbers.below(9),
            numbers.below(10),
            time_of_day(numbers)
        ),
    }
}

fn float(numbers: &mut Numbers, extreme: &str, tiny: &str) -> String {
    match numbers.below(6) {
        0 => format!("-{extreme}"),
        1 => extreme.to_string(),
        2 => tiny.to_string(),
        3 => "-0e0".to_string(),
        4 => format!("{}e-1", numbers.below(40)),
        _ => format!(
            "-{}.{}e{}",
            numbers.below(10),
            numbers.below(1_000_000_000),
            numbers.below(30)
        ),
    }
}

fn uuid(numbers: &mut Numbers) -> String {
    let (a, b) = (numbers.next(), numbers.next());
    let version = *numbers.pick(&[1, 4, 7]);
    format!(
        "'{:08x}-{:04x}-{version}{:03x}-9{:03x}-{:012x}'",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

/// Tables of one schema under construction.
pub(crate) struct Tables {
    pub(crate) sql: String,
    pub(crate) numbers: Numbers,
}

impl Tables {
    fn new(schema: &str, seed: u64) -> Tables {
        Tables {
            // IGNORE lets go of rows that the key calls equal to another, and of what a character set lacks.
            sql: format!(
                "CREATE DATABASE {schema} CHARACTER SET utf8mb4; USE {schema}; SET time_zone='+00:00'; \
                 SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';\n"
            ),
            numbers: Numbers(seed),
        }
    }

    /// A table `name (columns, v INT)` with `count` rows whose values in front of `v` are made by `row`.
    fn table(
        &mut self,
        name: &str,
        columns: &str,
        options: &str,
        count: usize,
        row: impl Fn(&mut Numbers) -> String,
    ) {
        writeln!(self.sql, "CREATE TABLE {name} ({columns}, v INT) {options};").unwrap();
        for batch in (0..count).collect::<Vec<_>>().chunks(100) {
            let rows: Vec<String> = batch
                .iter()
                .map(|v| format!("({}, {v})", row(&mut self.numbers)))
                .collect();
            writeln!(self.sql, "INSERT IGNORE INTO {name} VALUES {};", rows.join(",")).unwrap();
        }
    }

    fn numeric(&mut self) {
        for (bits, name) in [
            (8, "TINYINT"),
            (16, "SMALLINT"),
            (24, "MEDIUMINT"),
            (32, "INT"),
            (64, "BIGINT"),
        ] {
            for unsigned in [false, true] {
                let sign = if unsigned { " UNSIGNED" } else { "" };
                let columns = format!("k {name}{sign} PRIMARY KEY");
                let table = format!("integer_{bits}{}", if unsigned { "u" } else { "" });
                self.table(&table, &columns, "", 150, |n| integer(n, bits, unsigned));
            }
        }
        // All rows at one end but one.
        self.table("sparse", "k BIGINT PRIMARY KEY", "", 300, |n| {
            n.below(100_000).to_string()
        });
        self.sql
            .push_str("INSERT INTO sparse VALUES (9223372036854775807, 0);\n");
        self.table("decimal_long", "k DECIMAL(65,30) PRIMARY KEY", "", 150, |n| {
            decimal(n, 35, 30)
        });
        self.table("decimal_short", "k DECIMAL(4,2) PRIMARY KEY", "", 150, |n| {
            decimal(n, 2, 2)
        });
        self.table(
            "decimal_whole",
            "k DECIMAL(30,0) UNSIGNED PRIMARY KEY",
            "",
            150,
            |n| decimal(n, 30, 0).trim_matches(['-', '.']).to_string(),
        );
        self.table("doubles", "k DOUBLE PRIMARY KEY", "", 150, |n| {
            float(n, "1.7976931348623157e308", "4.9e-324")
        });
        self.table("floats", "k FLOAT PRIMARY KEY", "", 150, |n| {
            float(n, "3.4028234e38", "1.4e-45")
        });
        self.table("bits", "k BIT(64) PRIMARY KEY", "", 150, |n| integer(n, 64, true));
        self.table(
            "tail_of_members",
            "k INT, e ENUM('z','','b','a'), s SET('q','p',''), PRIMARY KEY (k, e, s)",
            "",
            150,
            |n| format!("{}, {}, {}", n.below(20), n.below(5), n.below(8)),
        );
    }

    fn temporal(&mut self) {
        self.table("dates", "k DATE PRIMARY KEY", "", 150, |n| {
            format!("'{}'", date(n))
        });
        self.table("datetimes", "k DATETIME(6) PRIMARY KEY", "", 150, |n| {
            format!("'{} {}'", date(n), time_of_day(n))
        });
        self.table("datetimes_whole", "k DATETIME PRIMARY KEY", "", 150, |n| {
            format!("'{} 00:{:02}:00'", date(n), n.below(60))
        });
        self.table(
            "timestamps",
            "k TIMESTAMP(6) DEFAULT '2000-01-01' PRIMARY KEY",
            "",
            150,
            timestamp,
        );
        self.table(
            "timestamps_whole",
            "k TIMESTAMP DEFAULT '2000-01-01' PRIMARY KEY",
            "",
            150,
            timestamp,
        );
        self.table("times", "k TIME(3) PRIMARY KEY", "", 150, |n| match n.below(4) {
            0 => "'-838:59:59'".to_string(),
            1 => "'838:59:59'".to_string(),
            2 => format!("'-{:03}:00:00.5'", n.below(838)),
            _ => format!("'{}'", time_of_day(n)),
        });
        self.table("years", "k YEAR, i INT, PRIMARY KEY (k, i)", "", 150, |n| {
            let year = *n.pick(&["0000", "1901", "2155", "2000", "2001"]);
            format!("'{year}', {}", n.below(30))
        });
    }

    fn binary(&mut self) {
        self.table("varbinaries", "k VARBINARY(20) PRIMARY KEY", "", 200, |n| {
            bytes_sql(n, 6)
        });
        self.table("binaries", "k BINARY(5) PRIMARY KEY", "", 200, |n| {
            bytes_sql(n, 5)
        });
        self.table(
            "longest",
            "k VARBINARY(3072) PRIMARY KEY",
            "ROW_FORMAT=DYNAMIC",
            60,
            |n| format!("REPEAT({}, {})", bytes_sql(n, 3), n.below(1024)),
        );
    }

    fn composite(&mut self) {
        self.table(
            "tenants",
            "a INT, b BIGINT UNSIGNED, PRIMARY KEY (a, b)",
            "",
            300,
            |n| format!("{}, {}", n.below(2), integer(n, 64, true)),
        );
        self.table(
            "three",
            "a INT, b INT, c INT, PRIMARY KEY (c, a, b)",
            "",
            300,
            |n| format!("{}, {}, {}", n.below(6), n.below(6), n.below(6)),
        );
        self.table(
            "text_and_more",
            "a VARCHAR(30), b DATE, c DECIMAL(5,2), d VARBINARY(9), PRIMARY KEY (a, c, b, d)",
            "",
            300,
            |n| {
                format!(
                    "{}, '{}', {}, {}",
                    text_sql(n, 1),
                    date(n),
                    n.below(2),
                    bytes_sql(n, 2)
                )
            },
        );
        self.table(
            "no_primary",
            "a VARCHAR(30) NOT NULL, b INT NOT NULL, UNIQUE KEY u (a, b)",
            "",
            200,
            |n| format!("{}, {}", text_sql(n, 2), n.below(3)),
        );
        self.table(
            "tail_by_prefix",
            "a VARCHAR(30), b TEXT, PRIMARY KEY (a, b(3))",
            "",
            200,
            |n| format!("{}, {}", text_sql(n, 1), text_sql(n, 3)),
        );
        self.table(
            "partitioned",
            "a INT, b VARCHAR(30), PRIMARY KEY (b, a)",
            "PARTITION BY HASH (a) PARTITIONS 5",
            300,
            |n| format!("{}, {}", n.below(40), text_sql(n, 3)),
        );
        self.table(
            "by_range",
            "a INT, b INT, PRIMARY KEY (a, b)",
            "PARTITION BY RANGE (a) SUBPARTITION BY HASH (b) SUBPARTITIONS 2 \
             (PARTITION p0 VALUES LESS THAN (0), PARTITION p1 VALUES LESS THAN MAXVALUE)",
            200,
            |n| format!("{}, {}", integer(n, 8, false), n.below(5)),
        );
    }

    /// Tables that are one range.
    fn not_cut(&mut self) {
        let values = |n: &mut Numbers| match n.below(3) {
            0 => "NULL".to_string(),
            _ => n.below(1000).to_string(),
        };
        self.table("whole_nullable", "k INT NULL, UNIQUE KEY (k)", "", 100, values);
        self.table("whole_no_key", "k INT", "", 100, values);
        self.table("whole_plain_key", "k INT NOT NULL, KEY (k)", "", 100, |n| {
            n.below(9).to_string()
        });
        self.table(
            "whole_enum",
            "k ENUM('z','','b','a'), i INT, PRIMARY KEY (k, i)",
            "",
            100,
            |n| format!("{}, {}", n.below(5), n.below(50)),
        );
        self.table("whole_prefix", "k TEXT, PRIMARY KEY (k(5))", "", 100, |n| {
            text_sql(n, 4)
        });
        self.table("whole_descending", "k INT, PRIMARY KEY (k DESC)", "", 100, |n| {
            n.below(1000).to_string()
        });
        self.table("whole_myisam", "k INT PRIMARY KEY", "ENGINE=MyISAM", 100, |n| {
            n.below(1000).to_string()
        });
        self.table("whole_memory", "k INT PRIMARY KEY", "ENGINE=MEMORY", 100, |n| {
            n.below(1000).to_string()
        });
    }

    fn only_on_mysql(&mut self) {
        self.table("whole_hidden", "k INT, UNIQUE KEY (k) INVISIBLE", "", 100, |n| {
            n.below(1000).to_string()
        });
    }

    fn only_on_mariadb(&mut self) {
        self.table("uuids", "k UUID PRIMARY KEY", "", 150, uuid);
        self.table("inets", "k INET6 PRIMARY KEY", "", 150, |n| {
            format!("'{:x}::{:x}'", n.below(3), n.below(0xffff))
        });
        self.table("inets4", "k INET4 PRIMARY KEY", "", 150, |n| {
            format!("'10.{}.0.{}'", n.below(256), n.below(256))
        });
        // Rows with history, several of one key, also equal only by its collation.
        for (name, columns) in [
            ("history", "k VARCHAR(9) PRIMARY KEY"),
            ("history_int", "k INT PRIMARY KEY"),
        ] {
            self.table(name, columns, "WITH SYSTEM VERSIONING", 60, |n| match name {
                "history" => text_sql(n, 2),
                _ => n.below(40).to_string(),
            });
            for at in 1..6 {
                writeln!(
                    self.sql,
                    "SET timestamp = UNIX_TIMESTAMP() + {at}; UPDATE {name} SET v = v + 1000 WHERE v % {at} = 0; \
                     DELETE FROM {name} WHERE v % 50 = {at};"
                )
                .unwrap();
            }
            self.sql
                .push_str("UPDATE history SET k = UPPER(k) WHERE v % 3 = 0; SET timestamp = DEFAULT;\n");
        }
    }
}

/// One table of each kind of key but text.
pub(crate) fn of_each_type(flavour: Flavour) -> String {
    let mut tables = Tables::new("types", 1);
    tables.numeric();
    tables.temporal();
    tables.binary();
    tables.composite();
    tables.not_cut();
    match flavour {
        Flavour::MariaDb => tables.only_on_mariadb(),
        Flavour::MySql => tables.only_on_mysql(),
    }
    tables.sql
}

/// A table for each collation: a key of CHAR and VARCHAR, and one of VARCHAR alone.
pub(crate) fn of_each_collation(collations: &[(String, String)]) -> String {
    let mut tables = Tables::new("texts", 2);
    for (character_set, collation) in collations {
        let with = format!("CHARACTER SET {character_set} COLLATE {collation}");
        let pair = format!("a CHAR(4) {with}, b VARCHAR(20) {with}, PRIMARY KEY (a, b)");
        tables.table(&format!("pair_{collation}"), &pair, "", 60, |n| {
            format!("{}, {}", text_sql(n, 1), text_sql(n, 4))
        });
        let single = format!("k VARCHAR(20) {with} PRIMARY KEY");
        tables.table(&format!("single_{collation}"), &single, "", 60, |n| {
            text_sql(n, 4)
        });
    }
    tables.sql
}
