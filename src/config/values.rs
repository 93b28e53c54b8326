//! Looks settings up (flag, then environment by Calico's rules) and reads them as a type; an error names who said what.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::Typed;
use super::settings::{CalicoType, SETTINGS, Setting, Spelling, setting};
use super::{ConfigError, Remark, World, datastore};

/// A value with the name under which the user gave it.
pub(super) struct Said {
    /// The variable as it was spelled, or the flag with its dashes.
    pub by: String,
    /// What was said.
    pub value: OsString,
    secret: bool,
    is_flag: bool,
}

impl Said {
    /// The error for this value: who said it, the value unless it is a secret, what is allowed.
    pub fn refuse(&self, allowed: impl std::fmt::Display) -> ConfigError {
        if self.secret {
            return ConfigError(format!("{}: {allowed}", self.by));
        }
        ConfigError(format!("{}: {:?} is not allowed: {allowed}", self.by, self.value.to_string_lossy()))
    }

    /// The value as text.
    pub fn text(&self) -> Result<&str, ConfigError> {
        self.value.to_str().ok_or_else(|| self.refuse("must be valid UTF-8"))
    }
}

/// All settings, by name.
pub(super) struct Values<'a> {
    flags: &'a HashMap<&'static str, OsString>,
    world: &'a World<'a>,
}

impl<'a> Values<'a> {
    /// Flags win over the environment.
    pub fn new(typed: &'a Typed, world: &'a World<'a>) -> Self {
        Self { flags: &typed.values, world }
    }

    /// Who set this, and to what; empty values included.
    fn set(&self, setting: &Setting) -> Option<Said> {
        let secret = setting.is_secret();
        if let Some(value) = self.flags.get(setting.name) {
            return Some(Said { by: format!("--{}", setting.flag()), value: value.clone(), secret, is_flag: true });
        }
        if setting.spelling == Spelling::Calico {
            let by = format!("CALICO_{}", setting.name);
            // Set but empty counts as set: it hides the other spelling.
            if let Some(value) = (self.world.variable)(&by) {
                return Some(Said { by, value, secret, is_flag: false });
            }
        }
        (self.world.variable)(setting.name).map(|value| Said { by: setting.name.to_owned(), value, secret, is_flag: false })
    }

    /// A setting that is set and not empty.
    pub fn get(&self, name: &str) -> Option<Said> {
        setting(name).and_then(|setting| self.set(setting)).filter(|said| !said.value.is_empty())
    }

    /// The same as trimmed text; blanks alone are as good as unset.
    pub fn text(&self, name: &str) -> Result<Option<(Said, String)>, ConfigError> {
        let Some(said) = self.get(name) else { return Ok(None) };
        let text = said.text()?.trim().to_owned();
        Ok((!text.is_empty()).then_some((said, text)))
    }

    /// Reads a trimmed text with `read`; where that finds nothing, the error says what is allowed.
    fn parse<T>(&self, name: &str, allowed: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some((said, text)) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).ok_or_else(|| said.refuse(allowed))
    }

    /// A whole number from 0 to `most`.
    pub fn number(&self, name: &str, most: u64, allowed: &str) -> Result<Option<u64>, ConfigError> {
        self.parse(name, allowed, |text| text.parse().ok().filter(|number| *number <= most))
    }

    /// A TCP port. A variable that holds a service link was not set by the user: it is ignored, with a remark.
    pub fn port(&self, name: &str, remarks: &mut Vec<Remark>) -> Result<Option<u16>, ConfigError> {
        match self.text(name)? {
            Some((said, text)) if !said.is_flag && is_service_link(&text) => {
                remarks.push(ignored_service_link(&said.by, &text));
                Ok(None)
            }
            _ => self.parse(name, "a TCP port, 0 to 65535 (0: any free one)", |text| text.parse().ok()),
        }
    }

    /// One of a few words, in any case.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let allowed = format!("one of {}", words.join(", "));
        self.parse(name, &allowed, |text| choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice))
    }

    /// A truth value as Go writes it, already checked by [`Values::check_calicos_types`].
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.parse(name, "one of true, false, 1, 0, t, f", |text| is_go_bool(text).then(|| text.starts_with(['1', 't', 'T'])))
    }

    /// An IP address; IPv6 also in brackets.
    pub fn address(&self, name: &str) -> Result<Option<IpAddr>, ConfigError> {
        self.parse(name, "an IPv4 or IPv6 address without a port", |text| {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            bare.map_or_else(|| text.parse().ok(), |v6| v6.parse().ok().map(IpAddr::V6))
        })
    }

    /// Host names, separated by commas; `*` stands for any.
    pub fn hosts(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let is_host =
            |host: &str| host == "*" || (!host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
        let hosts = self.parse(name, "host names without scheme and port, separated by commas, or *", |text| {
            let hosts: Vec<&str> = text.split(',').map(str::trim).collect();
            hosts.iter().all(|host| is_host(host)).then(|| hosts.into_iter().map(str::to_owned).collect())
        })?;
        Ok(hosts.unwrap_or_default())
    }

    /// A duration up to a minute.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.parse(name, "a duration such as 2s, 500ms or 2 (seconds), at most 60s", |text| {
            duration(text).filter(|duration| *duration <= Duration::from_secs(60))
        })
    }

    /// How often to do something; 0 for never.
    pub fn interval(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let allowed = "0 (never), or a duration from 100ms to 60s";
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        self.parse(name, allowed, |text| duration(text).filter(|interval| interval.is_zero() || range.contains(interval)))
    }

    /// A path, as it stands: a file's name may begin or end with a blank.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.get(name).map(|said| PathBuf::from(said.value)))
    }

    /// Checks what only Calico uses. Its client refuses to start on a bad value, set-but-empty included; saying nothing here
    /// would hide that this node's calico-node cannot have started with the same settings.
    pub fn check_calicos_types(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let Some(calico_type) = setting.calico_type else { continue };
            let Some(said) = self.set(setting) else { continue };
            let text = said.text()?;
            let (good, allowed) = match calico_type {
                CalicoType::Bool => (is_go_bool(text), "one of true, false, 1, 0, t, f"),
                CalicoType::Int => (go_int(text).is_some(), "a whole number"),
                CalicoType::Float => (is_go_float32(text), "a number"),
            };
            if !good {
                return Err(said.refuse(allowed));
            }
        }
        Ok(())
    }
}

/// Whether this is what the kubelet puts into `<SERVICE>_PORT` for each Service of a pod's namespace, and Docker into `<LINK>_PORT` of linked
/// containers: `tcp://10.43.106.12:443`.
pub(super) fn is_service_link(text: &str) -> bool {
    let Some((scheme, address)) = text.split_once("://") else { return false };
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    ["tcp", "udp", "sctp"].contains(&scheme) && has_port && datastore::is_authority(address)
}

/// The remark that a variable is ignored because it holds a service link.
pub(super) fn ignored_service_link(variable: &str, link: &str) -> Remark {
    let text = format!("{variable}: ignored, {link:?} is a service link of Kubernetes or Docker and not a port");
    Remark { level: log::Level::Info, text }
}

/// `2s`, `500ms`, `1.5s`, `2` (seconds).
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    // `f64` also reads `inf`, `1e3` and `+1`; a duration is digits with at most one point.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// What Go's `strconv.ParseBool` takes.
fn is_go_bool(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"].contains(&text)
}

/// Go's `strconv.ParseInt` with base 0: the base is in the prefix, underscores may separate digits.
pub(super) fn go_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// Go's `strconv.ParseFloat` with 32 bits, but for hexadecimal floats, which nobody writes into a manifest.
fn is_go_float32(text: &str) -> bool {
    let named = text.trim_start_matches(['+', '-']).starts_with(['i', 'I', 'n', 'N']);
    text.parse::<f32>().is_ok_and(|number| named || number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("2s", 2000), ("500ms", 500), ("2", 2000), ("1.5s", 1500), ("0", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "ms", "-1", "+1", "1e3", "inf", "nan", "1m", "2 s", "1.2.3"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn service_links() {
        for text in ["tcp://10.43.106.12:443", "udp://10.0.0.10:53", "sctp://10.0.0.1:1", "tcp://[fd00::1]:443", "tcp://db:5432"] {
            assert!(is_service_link(text), "{text}");
        }
        for text in ["9009", "tcp", "tcp://", "tcp://10.0.0.1", "tcp://10.0.0.1:x", "tcp://[fd00::1]", "tcp://:80", "http://10.0.0.1:80"] {
            assert!(!is_service_link(text), "{text}");
        }
    }

    #[test]
    fn gos_numbers() {
        for (text, number) in [("5", 5), ("-5", -5), ("+5", 5), ("0x1F", 31), ("0b11", 3), ("0o17", 15), ("017", 15), ("1_000", 1000)] {
            assert_eq!(go_int(text), Some(number), "{text}");
        }
        for text in ["", "-", "x", "08", "1.5", "--5", "0x-5", "99999999999999999999"] {
            assert_eq!(go_int(text), None, "{text}");
        }
        for text in ["1", "1.5", "-1e5", ".5", "inf", "NaN", "+Inf"] {
            assert!(is_go_float32(text), "{text}");
        }
        for text in ["", "x", "1e99", "1,5"] {
            assert!(!is_go_float32(text), "{text}");
        }
    }
}
