//! How figures are put for people: sizes in binary units, spans of time, moments in UTC and local time. And how answers are printed.

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// `1.4 GiB`, `12 KiB`, `900 B`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2 h 05 min`, `3 min 20 s`, `4.2 s`, `80 ms`.
pub fn span(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The moment `milliseconds` after 1970 UTC, in UTC and in local time where that differs.
pub fn moment(milliseconds: u64) -> String {
    let Some(utc) = i64::try_from(milliseconds)
        .ok()
        .and_then(DateTime::<Utc>::from_timestamp_millis)
    else {
        return format!("{milliseconds} ms after 1970");
    };
    let text = utc.to_rfc3339_opts(SecondsFormat::Secs, true);
    let local = utc.with_timezone(&Local);
    if local.offset().local_minus_utc() == 0 {
        text
    } else {
        format!("{text} (local {})", local.format("%Y-%m-%d %H:%M:%S %z"))
    }
}

/// The same with microseconds, as far as they are known.
pub fn moment_us(microseconds: u64) -> String {
    let Some(utc) = i64::try_from(microseconds)
        .ok()
        .and_then(DateTime::<Utc>::from_timestamp_micros)
    else {
        return format!("{microseconds} µs after 1970");
    };
    let text = utc.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let local = utc.with_timezone(&Local);
    format!("{text} (local {})", local.format("%Y-%m-%d %H:%M:%S %z"))
}

/// The first names of a list, and how many more there are.
pub fn some_of(names: &[String], shown: usize) -> String {
    let first = names.get(..shown).unwrap_or(names).join(", ");
    match names.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Now, in milliseconds since 1970 UTC.
pub fn now_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0)
}

/// Prints a line. Who reads may stop early (`| head`): then there is nobody left to tell, and the work goes on.
pub fn print(line: impl std::fmt::Display) {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            print_error(format!("warning: the answer cannot be written: {error}"));
        }
        _ => {}
    }
}

/// Prints a line to standard error. Where nobody reads it, nobody is left to tell either.
pub fn print_error(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(
            [count(0), count(999), count(1000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(span(Duration::from_secs(7500)), "2 h 05 min");
        assert_eq!(span(Duration::from_millis(4200)), "4.2 s");
    }
}
