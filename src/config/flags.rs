//! Parses the command line. Values are not checked, except glog's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use super::ConfigError;
use super::commands::{self, CommandOption, SUBCOMMANDS, Subcommand};
use super::settings::{SETTINGS, Setting};
use super::syntax::go_int;

#[derive(Debug)]
pub(super) enum Asked {
    Help(Option<&'static Subcommand>),
    Version,
    Run(Typed),
}

#[derive(Debug, Default)]
pub(super) struct Typed {
    /// By the name of the setting. If a flag is repeated, the last one counts.
    pub values: HashMap<&'static str, OsString>,
    /// glog's `-v`.
    pub verbosity: Option<i32>,
    pub command: Option<&'static Subcommand>,
    pub operand: Option<String>,
    /// The command's own flags in their order, with their values.
    pub options: Vec<(&'static str, OsString)>,
}

/// glog's flags, and whether each is boolean and so takes a value only after `=`.
const GLOG: &[(&str, bool)] = &[
    ("logtostderr", true),
    ("alsologtostderr", true),
    ("v", false),
    ("stderrthreshold", false),
    ("vmodule", false),
    ("log_dir", false),
    ("log_backtrace_at", false),
];

/// Returns the level for glog's `-v`. The Go exporter's manifests have `-v=2`, which must not enable debug output.
pub(super) fn level_of_verbosity(verbosity: i32) -> log::LevelFilter {
    match verbosity {
        ..=3 => log::LevelFilter::Info,
        4..=5 => log::LevelFilter::Debug,
        6.. => log::LevelFilter::Trace,
    }
}

pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut typed = Typed::default();
    loop {
        if glog_flag(&mut parser, &mut typed)? {
            continue;
        }
        let Some(arg) = parser.next().map_err(usage)? else { break };
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help(typed.command)),
            Arg::Short('V') | Arg::Long("version") => return Ok(Asked::Version),
            Arg::Value(word) => typed.word(word)?,
            flag => match option(&flag) {
                Some(option) => {
                    let value = if option.value.is_some() { parser.value().map_err(usage)? } else { OsString::new() };
                    typed.options.push((option.name, value));
                }
                None => {
                    let setting = setting_of_flag(flag)?;
                    typed.values.insert(setting.name, parser.value().map_err(usage)?);
                }
            },
        }
    }
    typed.check_options()?;
    Ok(Asked::Run(typed))
}

impl Typed {
    fn word(&mut self, word: OsString) -> Result<(), ConfigError> {
        let text = word.to_string_lossy();
        match self.command {
            None => {
                let names: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
                let unknown = || ConfigError(format!("{text:?}: unknown command, known are {} (see --help)", names.join(", ")));
                self.command = Some(commands::subcommand(&text).ok_or_else(unknown)?);
            }
            Some(command) if command.operand.is_some() && self.operand.is_none() => self.operand = Some(text.into_owned()),
            Some(command) => return Err(ConfigError(format!("{text:?}: one argument too many (see {} --help)", command.name))),
        }
        Ok(())
    }

    fn check_options(&self) -> Result<(), ConfigError> {
        let allowed = self.command.map_or(&[][..], |command| command.options);
        match self.options.iter().find(|(name, _)| !allowed.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let of: Vec<&str> =
                    SUBCOMMANDS.iter().filter(|command| command.options.contains(name)).map(|command| command.name).collect();
                Err(ConfigError(format!("--{name}: a flag of {} (see --help)", of.join(", "))))
            }
        }
    }
}

/// Returns a command's own flag.
fn option(flag: &Arg<'_>) -> Option<&'static CommandOption> {
    commands::option(|option| match *flag {
        Arg::Long(name) => option.name == name,
        Arg::Short(letter) => option.short == Some(letter),
        Arg::Value(_) => false,
    })
}

fn setting_of_flag(flag: Arg<'_>) -> Result<&'static Setting, ConfigError> {
    let setting = SETTINGS.iter().find(|setting| matches!(flag, Arg::Long(name) if setting.flag() == name));
    let setting = setting.ok_or_else(|| usage(flag.unexpected()))?;
    if setting.is_secret() {
        let (flag, name) = (setting.flag(), setting.name);
        return Err(ConfigError(format!(
            "--{flag}: not a flag, because every process of the host can read command lines; set {name} \
            instead"
        )));
    }
    Ok(setting)
}

fn usage(error: lexopt::Error) -> ConfigError {
    let what = match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option}: a value is missing"),
        lexopt::Error::UnexpectedOption(option) => format!("{option:?}: unknown flag"),
        // The value is not shown, because it may be a misplaced secret.
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option}: takes no value"),
        other => format!("{:?}", other.to_string()),
    };
    ConfigError(format!("{what} (see --help)"))
}

/// Parses a flag of glog's, with one dash or two. Go's rules: `-name=value`, and for all but booleans also `-name value`.
fn glog_flag(parser: &mut lexopt::Parser, typed: &mut Typed) -> Result<bool, ConfigError> {
    let Some(mut raw) = parser.try_raw_args() else { return Ok(false) };
    let Some((name, is_bool, value)) = raw.peek().and_then(glog_parts) else { return Ok(false) };
    raw.next();
    let value = match value {
        Some(value) => value,
        None if is_bool => "true".to_owned(),
        None => match raw.next() {
            Some(value) => value.to_string_lossy().into_owned(),
            None => return Err(ConfigError(format!("-{name}: a value is missing (see --help)"))),
        },
    };
    if name == "v" {
        let level = go_int(&value).and_then(|level| i32::try_from(level).ok());
        typed.verbosity = Some(level.ok_or_else(|| ConfigError(format!("-v: {value:?} is not allowed: a whole number")))?);
    }
    Ok(true)
}

fn glog_parts(arg: &OsStr) -> Option<(&'static str, bool, Option<String>)> {
    let text = arg.to_str()?;
    let text = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
    GLOG.iter().find(|(known, _)| *known == name).map(|(known, is_bool)| (*known, *is_bool, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(args: &[&str]) -> Typed {
        match parse(args.iter().map(OsString::from)) {
            Ok(Asked::Run(typed)) => typed,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn error(args: &[&str]) -> String {
        parse(args.iter().map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn a_flag_takes_its_value_after_equals_or_a_blank_and_the_last_wins() {
        let typed = typed(&["--metrics-server-port=1", "--metrics-server-port", "2", "--etcd-endpoints=a=b"]);
        assert_eq!(typed.values["METRICS_SERVER_PORT"], "2");
        assert_eq!(typed.values["ETCD_ENDPOINTS"], "a=b");
    }

    #[test]
    fn the_go_programs_glog_flags_are_accepted() {
        for args in [
            &["-logtostderr=true", "-v=2"][..],
            &["--logtostderr", "-v", "2"],
            &["-alsologtostderr", "--v=2", "-stderrthreshold=INFO", "-vmodule", "a=1", "-log_dir=/tmp", "-log_backtrace_at", "x:1"],
        ] {
            assert_eq!(typed(args).verbosity, Some(2), "{args:?}");
        }
        assert_eq!(typed(&["-logtostderr", "--log-level", "debug"]).values["LOG_LEVEL"], "debug");
        assert_eq!(error(&["-v=many"]), "-v: \"many\" is not allowed: a whole number");
        assert_eq!(error(&["-v"]), "-v: a value is missing (see --help)");
    }

    #[test]
    fn commands_take_flags_before_and_behind_them() {
        let typed = typed(&["--nodename", "n", "-logtostderr", "explain", "--ruleset=a", "shop/web", "--ruleset", "-", "--json"]);
        assert_eq!(typed.command.map(|command| command.name), Some("explain"));
        assert_eq!((typed.operand.as_deref(), &typed.values["NODENAME"]), (Some("shop/web"), &OsString::from("n")));
        let options: Vec<_> = typed.options.iter().map(|(name, value)| (*name, value.to_str().unwrap())).collect();
        assert_eq!(options, [("ruleset", "a"), ("ruleset", "-"), ("json", "")]);
        assert!(matches!(parse(["top", "-h"].map(OsString::from)), Ok(Asked::Help(Some(command))) if command.name == "top"));
        assert!(matches!(parse(["-h".into()]), Ok(Asked::Help(None))) && matches!(parse(["-V".into()]), Ok(Asked::Version)));
    }

    #[test]
    fn the_demos_verbosity_stays_at_info() {
        use log::LevelFilter::{Debug, Info, Trace};
        for (verbosity, level) in [(-1, Info), (0, Info), (2, Info), (4, Debug), (5, Debug), (6, Trace), (10, Trace)] {
            assert_eq!(level_of_verbosity(verbosity), level, "-v={verbosity}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let password = "--etcd-password: not a flag, because every process of the host can read command lines; set ETCD_PASSWORD instead";
        for (args, expected) in [
            (&["--etcd-password=hunter2"][..], password),
            (&["--etcd-password", "hunter2"], password),
            (&["--nope"], "\"--nope\": unknown flag (see --help)"),
            (&["-x"], "\"-x\": unknown flag (see --help)"),
            (&["check", "-n", "shop"], "--namespace: a flag of top, explain, policies, workloads, watch (see --help)"),
            (&["-logtostder=true"], "\"-l\": unknown flag (see --help)"),
            (
                &["server"],
                "\"server\": unknown command, known are serve, metrics, top, explain, policies, workloads, watch, check (see --help)",
            ),
            (&["serve", "x"], "\"x\": one argument too many (see serve --help)"),
            (&["explain", "a/b", "c/d"], "\"c/d\": one argument too many (see explain --help)"),
            (&["--json"], "--json: a flag of top, explain, policies, workloads, watch, check (see --help)"),
            (&["check", "--output=x"], "--output: a flag of metrics (see --help)"),
            (&["top", "--json=1"], "--json: takes no value (see --help)"),
            (&["top", "--ruleset"], "--ruleset: a value is missing (see --help)"),
            (&["--log-level"], "--log-level: a value is missing (see --help)"),
            (
                &["--", "x"],
                "\"x\": unknown command, known are serve, metrics, top, explain, policies, workloads, watch, check (see \
                --help)",
            ),
        ] {
            assert_eq!(error(args), expected, "{args:?}");
        }
    }
}
