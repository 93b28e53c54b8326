//! Log lines on standard error: one line for each event, in logfmt or JSON. Text from outside cannot break or forge a line. The rate of
//! lines is limited.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::LogFormat;
use crate::datastore::bounds::cut;

/// The longest message in bytes. Longer ones are truncated.
const LONGEST_MESSAGE: usize = 2048;
const BURST: u32 = 500;
/// After a burst, one line is allowed in each of these intervals: 36,000 an hour.
const REFILL: Duration = Duration::from_millis(100);

/// Starts logging. A second call has no effect.
pub fn start(level: LevelFilter, format: LogFormat) {
    if log::set_boxed_logger(Box::new(Logger::new(level, format))).is_ok() {
        log::set_max_level(level);
    }
}

struct Logger {
    level: LevelFilter,
    format: LogFormat,
    rate: Mutex<Rate>,
}

/// A rate limit. Once no line is left, `PART` lines are saved up first. So a flood shows in parts, each with the number of missing lines
/// before it.
struct Rate {
    left: u32,
    counted: Instant,
    /// The number of lines left out since the limit was reached; `None` if it is not reached.
    left_out: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Passage {
    Free,
    /// This line is logged, and the next ones are not.
    Last,
    /// This line is logged, after this many that were not.
    After(u64),
    Closed,
}

impl Rate {
    /// The number of lines saved up after a flood.
    const PART: u32 = BURST / 10;

    fn new(now: Instant) -> Self {
        Rate { left: BURST, counted: now, left_out: None }
    }

    fn pass(&mut self, now: Instant) -> Passage {
        let gained = now.duration_since(self.counted).div_duration_f64(REFILL) as u32;
        self.counted += REFILL * gained;
        self.left = self.left.saturating_add(gained).min(BURST);
        match &mut self.left_out {
            Some(left_out) if self.left < Self::PART => {
                *left_out += 1;
                return Passage::Closed;
            }
            _ => self.left -= 1,
        }
        match self.left_out.take() {
            Some(left_out) if left_out > 0 => Passage::After(left_out),
            _ if self.left == 0 => {
                self.left_out = Some(0);
                Passage::Last
            }
            _ => Passage::Free,
        }
    }
}

/// Libraries whose debug output is about their internals.
const CHATTY: [&str; 2] = ["ureq", "rustls"];
/// A library that logs every byte it sends and receives, including passwords and tokens.
const INDISCREET: &str = "ureq_proto";

impl Logger {
    fn new(level: LevelFilter, format: LogFormat) -> Self {
        Logger { level, format, rate: Mutex::new(Rate::new(Instant::now())) }
    }

    fn write(&self, level: Level, message: &str) {
        let line = line(self.format, SystemTime::now(), level, &cut(message, LONGEST_MESSAGE));
        // One write, so that lines of several threads do not mix. A failure cannot be reported.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn wants(&self, target: &str, level: Level) -> bool {
        let library = target.split("::").next().unwrap_or(target);
        let is_unwanted = library == INDISCREET || self.level < LevelFilter::Trace && CHATTY.contains(&library);
        level <= self.level && (level <= Level::Warn || !is_unwanted)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let passage = match record.level() {
            // Errors are few by nature, and the reason for an exit must be visible.
            Level::Error => Passage::Free,
            _ => self.rate.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now()),
        };
        match passage {
            Passage::Closed => return,
            Passage::After(lines) => self.write(Level::Warn, &format!("{lines} lines of the log are left out here")),
            Passage::Free | Passage::Last => {}
        }
        self.write(record.level(), &super::plain(&record.args().to_string()));
        if passage == Passage::Last {
            self.write(Level::Warn, "too many log lines: the next ones are left out and counted");
        }
    }

    fn flush(&self) {}
}

/// Formats one event as one line, including the newline.
fn line(format: LogFormat, time: SystemTime, level: Level, message: &str) -> String {
    let (time, level, message) = (rfc3339(time), level.as_str().to_ascii_lowercase(), escape(message));
    match format {
        LogFormat::Logfmt => format!("time={time} level={level} msg=\"{message}\"\n"),
        LogFormat::Json => format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"msg\":\"{message}\"}}\n"),
    }
}

/// Escapes as in a JSON string everything that could end a line or control a terminal. Readers of logfmt understand this too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Writing to a String cannot fail.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => _ = write!(escaped, "\\u{:04x}", u32::from(c)),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Formats a time as `2026-01-31T23:59:59.123Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = civil(days);
    let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Converts days since 1970-01-01 to year, month and day (Howard Hinnant's `civil_from_days`). Years begin in March, so that the leap day
/// comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// The maximum number of remembered keys, because keys come from outside. Further keys never count as new.
const MOST_KEYS: usize = 1024;

fn is_new(key: &str, said: &Mutex<BTreeSet<String>>) -> bool {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.len() < MOST_KEYS && !said.contains(key) && said.insert(key.to_owned())
}

/// Logs a message only at the first use of this `key` in the process. For problems that every scrape would report again.
pub fn once(level: Level, key: &str, message: impl std::fmt::Display) {
    if is_new(key, &SAID) {
        log::log!(level, "{message}");
    }
}

/// Logs each panic as one line. A library that panics on outside input does so repeatedly: a further panic at the same place is logged at
/// debug level.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let message = panic.payload_as_str().unwrap_or("no message");
        let level = if is_new(&format!("panic {place}"), &SAID) { Level::Error } else { Level::Debug };
        log::log!(level, "thread {:?} panicked at {place}: {message}", thread.name().unwrap_or("unnamed"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn one_event_is_one_line_whatever_it_says() {
        let evil = "a \"b\" \\ \n\r\t\u{1b}[31m\u{85}\u{2028}é";
        let logfmt = line(LogFormat::Logfmt, UNIX_EPOCH, Level::Warn, evil);
        let expected = r#"time=1970-01-01T00:00:00.000Z level=warn msg="a \"b\" \\ \n\r\t\u001b[31m\u0085\u2028é""#;
        assert_eq!(logfmt, format!("{expected}\n"));
        let json = line(LogFormat::Json, UNIX_EPOCH, Level::Warn, evil);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((value["msg"].as_str(), value["level"].as_str()), (Some(evil), Some("warn")));
        assert_eq!(json.matches('\n').count(), 1);
    }

    #[test]
    fn libraries_are_quiet_unless_everything_is_wanted() {
        let debug = Logger::new(LevelFilter::Debug, LogFormat::Json);
        assert!(debug.wants("calico_accountant::etcd", Level::Debug));
        assert!(debug.wants("ureq::run", Level::Warn));
        assert!(!debug.wants("ureq::run", Level::Info));
        assert!(!debug.wants("rustls::client", Level::Debug));
        let trace = Logger::new(LevelFilter::Trace, LogFormat::Json);
        assert!(trace.wants("ureq::run", Level::Trace));
        assert!(!trace.wants("ureq_proto::util", Level::Trace), "tokens in it");
    }

    #[test]
    fn a_flood_of_lines_is_thinned_out_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert!((1..BURST).all(|_| rate.pass(start) == Passage::Free));
        assert_eq!(rate.pass(start), Passage::Last);
        // A line every millisecond for a minute.
        let after: Vec<_> = (1..=59_000).map(|ms| rate.pass(start + Duration::from_millis(ms))).collect();
        let logged = after.iter().filter(|passage| **passage != Passage::Closed).count();
        assert!((550..=600).contains(&logged), "{logged}");
        let told: u64 = after.iter().map(|passage| if let Passage::After(lines) = passage { *lines } else { 0 }).sum();
        let untold = rate.left_out.unwrap_or_default();
        assert_eq!(told + untold + logged as u64, 59_000);
        // Then there are no lines for a while.
        let later = start + Duration::from_secs(120);
        assert_eq!((rate.pass(later), rate.pass(later)), (Passage::After(untold), Passage::Free));
    }

    #[test]
    fn once_is_bounded() {
        let said = Mutex::default();
        assert!(is_new("0", &said) && !is_new("0", &said));
        assert!((1..MOST_KEYS).all(|key| is_new(&key.to_string(), &said)));
        assert!(!is_new("one too many", &said));
    }
}
