//! Looks up settings (flag, then environment by Calico's rules) and parses them. An error names the variable or flag.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::Typed;
use super::settings::{CalicoType, SETTINGS, Setting, Spelling, setting};
use super::syntax::{RATES, duration, go_int, is_go_bool, is_go_float32, is_service_link, rate};
use super::{ConfigError, Remark, Sampling, Witnesses, World};

pub(super) struct Said {
    /// The variable as it was spelled, or the flag with its dashes.
    pub by: String,
    pub value: OsString,
    is_secret: bool,
    is_flag: bool,
}

impl Said {
    /// Returns the error for this value: the variable or flag, the value unless it is a secret, and what is allowed.
    pub fn refuse(&self, allowed: impl std::fmt::Display) -> ConfigError {
        if self.is_secret {
            return ConfigError(format!("{}: {allowed}", self.by));
        }
        ConfigError(format!("{}: {:?} is not allowed: {allowed}", self.by, self.value.to_string_lossy()))
    }

    pub fn text(&self) -> Result<&str, ConfigError> {
        self.value.to_str().ok_or_else(|| self.refuse("must be valid UTF-8"))
    }
}

const BOOLS: &str = "one of true, false, 1, 0, t, f";

pub(super) struct Values<'a> {
    flags: &'a HashMap<&'static str, OsString>,
    world: &'a World<'a>,
}

impl<'a> Values<'a> {
    pub fn new(typed: &'a Typed, world: &'a World<'a>) -> Self {
        Self { flags: &typed.values, world }
    }

    /// Returns a setting's value, even if empty, and its source. A flag has priority over the environment.
    fn said(&self, setting: &Setting) -> Option<Said> {
        let is_secret = setting.is_secret();
        if let Some(value) = self.flags.get(setting.name) {
            return Some(Said { by: format!("--{}", setting.flag()), value: value.clone(), is_secret, is_flag: true });
        }
        let calicos = (setting.spelling == Spelling::Calico).then(|| format!("CALICO_{}", setting.name));
        // An empty variable counts as set and hides the other spelling.
        let mut spellings = calicos.into_iter().chain([setting.name.to_owned()]);
        spellings.find_map(|by| (self.world.variable)(&by).map(|value| Said { by, value, is_secret, is_flag: false }))
    }

    /// Returns a setting's value. An empty value counts as unset.
    pub fn get(&self, name: &str) -> Option<Said> {
        setting(name).and_then(|setting| self.said(setting)).filter(|said| !said.value.is_empty())
    }

    /// Returns the trimmed text. A text of blanks counts as unset.
    pub fn text(&self, name: &str) -> Result<Option<(Said, String)>, ConfigError> {
        let Some(said) = self.get(name) else { return Ok(None) };
        let text = said.text()?.trim().to_owned();
        Ok((!text.is_empty()).then_some((said, text)))
    }

    /// Parses a trimmed text with `read`. If that fails, the error says what is allowed.
    pub fn parse<T>(&self, name: &str, allowed: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some((said, text)) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).ok_or_else(|| said.refuse(allowed))
    }

    /// Parses a TCP port. A variable with a service link was not set by the user, so it is ignored with a remark.
    pub fn port(&self, name: &str, remarks: &mut Vec<Remark>) -> Result<Option<u16>, ConfigError> {
        match self.text(name)? {
            Some((said, text)) if !said.is_flag && is_service_link(&text) => {
                remarks.push(ignored_service_link(&said.by, &text));
                Ok(None)
            }
            _ => self.parse(name, "a TCP port, 0 to 65535 (0: any free one)", |text| text.parse().ok()),
        }
    }

    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let allowed = format!("one of {}", words.join(", "));
        self.parse(name, &allowed, |text| choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice))
    }

    /// Parses a boolean in Go's format, which [`Values::check_calicos_types`] has already checked.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.parse(name, BOOLS, |text| is_go_bool(text).then(|| text.starts_with(['1', 't', 'T'])))
    }

    /// Parses an IP address. IPv6 may be in brackets.
    pub fn address(&self, name: &str) -> Result<Option<IpAddr>, ConfigError> {
        self.parse(name, "an IPv4 or IPv6 address without a port", |text| {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            bare.map_or_else(|| text.parse().ok(), |v6| v6.parse().ok().map(IpAddr::V6))
        })
    }

    pub fn hosts(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let is_host =
            |host: &str| host == "*" || (!host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
        let hosts = self.parse(name, "host names without scheme and port, separated by commas, or *", |text| {
            let hosts: Vec<&str> = text.split(',').map(str::trim).collect();
            hosts.iter().all(|host| is_host(host)).then(|| hosts.into_iter().map(str::to_owned).collect())
        })?;
        Ok(hosts.unwrap_or_default())
    }

    /// Parses the URL of a web page, to which paths are appended.
    pub fn link(&self, name: &str) -> Result<Option<String>, ConfigError> {
        self.parse(name, "an http:// or https:// URL without a query, such as https://grafana.example.org", |text| {
            let text = text.trim_end_matches('/');
            let place = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&b);
            (!place.is_empty() && !place.starts_with('/') && place.bytes().all(is_plain)).then(|| text.to_owned())
        })
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.parse(name, "a duration such as 2s, 500ms or 2 (seconds), at most 60s", |text| {
            duration(text).filter(|duration| *duration <= Duration::from_secs(60))
        })
    }

    pub fn sampling(&self, name: &str) -> Result<Sampling, ConfigError> {
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        let sampling = self.parse(name, "0 (never), or a duration from 100ms to 60s", |text| match duration(text)? {
            Duration::ZERO => Some(Sampling::Never),
            interval => range.contains(&interval).then_some(Sampling::Every(interval)),
        })?;
        Ok(sampling.unwrap_or(Sampling::WhereItPays))
    }

    pub fn witnesses(&self) -> Result<Option<Witnesses>, ConfigError> {
        let groups = self.choice("WITNESSES", &[("off", None), ("drops", Some(false)), ("groups", Some(true))])?.flatten();
        let rate = self.parse("WITNESS_RATE", RATES, rate)?.unwrap_or(100);
        let log = self.boolean("WITNESS_LOG")?.unwrap_or(false);
        Ok(groups.map(|groups| Witnesses { groups, rate, log }))
    }

    /// Returns a path unchanged, because a file's name may begin or end with a blank.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.get(name).map(|said| PathBuf::from(said.value)))
    }

    /// Checks the values that Calico's client would check. It refuses to start on a bad or empty value, so calico-node cannot have started
    /// with the same settings.
    pub fn check_calicos_types(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let Some(calico_type) = setting.calico_type else { continue };
            let Some(said) = self.said(setting) else { continue };
            let text = said.text()?;
            let (good, allowed) = match calico_type {
                CalicoType::Bool => (is_go_bool(text), BOOLS),
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

pub(super) fn ignored_service_link(variable: &str, link: &str) -> Remark {
    Remark::info(format!("{variable}: ignored, {link:?} is a service link of Kubernetes or Docker and not a port"))
}
