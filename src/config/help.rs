//! The text of `--help`, generated from the tables of settings and commands, at most 100 columns wide.

use super::commands::{OPTIONS, SUBCOMMANDS, Subcommand};
use super::settings::{Group, SETTINGS, Setting, Spelling};

const HEAD: &str = "\
Prometheus exporter: which Calico policy accepts or drops each workload's packets, and how many.

Usage: calico-accountant [command] [flags]

Commands (COMMAND --help says more)
";

const SECTIONS: [(&str, Group); 4] = [
    ("\nEvery setting is an environment variable; the flag of the same name wins over it.\n\nExporter\n", Group::Exporter),
    ("\nReading the kernel\n", Group::Kernel),
    ("\nCalico's datastore\n  As in Calico, CALICO_<NAME> comes first and hides <NAME>, even if it is set to nothing.\n", Group::Datastore),
    ("\nChecked as Calico does, otherwise without effect\n", Group::Unused),
];

const TAIL: &str = "
Other flags
  -h, --help       Print this text.
  -V, --version    Print the version.
  -logtostderr, -alsologtostderr, -stderrthreshold, -vmodule, -log_dir, -log_backtrace_at, -v
      glog flags of the Go exporter, accepted. -v 4 and more is LOG_LEVEL=debug, 6 and more trace,
      unless LOG_LEVEL is set.

Exit codes: 0 done, or ended by SIGTERM or SIGINT; 1 failed; 2 wrong command, flag or variable.
";

pub(super) fn text() -> String {
    let mut text = HEAD.to_owned();
    for command in SUBCOMMANDS {
        text.push_str(&format!("  {:<24}{}\n", usage(command), command.about));
    }
    for (heading, group) in SECTIONS {
        text.push_str(heading);
        SETTINGS.iter().filter(|setting| setting.group == group).for_each(|one| setting(&mut text, one));
    }
    text.push_str(TAIL);
    text
}

fn usage(command: &Subcommand) -> String {
    command.operand.map_or_else(|| command.name.to_owned(), |operand| format!("{} {operand}", command.name))
}

pub(super) fn command(command: &Subcommand) -> String {
    let mut text = format!("{}\n\nUsage: calico-accountant {} [flags]\n", command.about, usage(command));
    if !command.more.is_empty() {
        text.push_str(&format!("\n{}\n", wrapped(command.more, 100).join("\n")));
    }
    if !command.options.is_empty() {
        text.push_str("\nFlags\n");
    }
    for option in OPTIONS.iter().filter(|option| command.options.contains(&option.name)) {
        let value = option.value.map(|value| format!(" <{value}>")).unwrap_or_default();
        let short = option.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        text.push_str(&format!("  {short}--{}{value}\n", option.name));
        for line in wrapped(option.help, 94) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text.push_str("\nExamples\n");
    for (what, line) in command.examples {
        text.push_str(&format!("  {what}:\n      calico-accountant {line}\n"));
    }
    text.push_str("\nAll settings of the exporter apply here too: see calico-accountant --help.\n");
    text
}

/// Wraps a text into lines of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => line.extend([" ", word]),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn setting(text: &mut String, setting: &Setting) {
    let first = if setting.is_secret() { String::new() } else { flag_column(setting) };
    let line = format!("  {first:<46}{}", setting.name);
    text.push_str(line.trim_end());
    if setting.group == Group::Unused {
        text.push('\n');
        return;
    }
    let also = if setting.spelling == Spelling::Calico { format!(", CALICO_{}", setting.name) } else { String::new() };
    match line.len() + also.len() > 100 {
        true => text.push_str(&format!(",\n{:48}{}", "", also.trim_start_matches(", "))),
        false => text.push_str(&also),
    }
    text.push('\n');
    let default = setting.default.map(|default| format!("Default: {default}"));
    for line in [Some(setting.help), default.as_deref()].into_iter().flatten().flat_map(|text| wrapped(text, 94)) {
        text.push_str(&format!("      {line}\n"));
    }
}

fn flag_column(setting: &Setting) -> String {
    format!("--{} <{}>", setting.flag(), setting.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_everything_within_100_columns() {
        let text = text();
        for setting in SETTINGS {
            assert!(text.contains(setting.name), "{}", setting.name);
            assert_eq!(text.contains(&format!("--{} <", setting.flag())), !setting.is_secret(), "{}", setting.name);
        }
        for command in SUBCOMMANDS {
            assert!(text.contains(&format!("\n  {}", usage(command))), "{}", command.name);
            let own = super::command(command);
            for name in command.options {
                assert!(own.contains(&format!("--{name}")), "{} --{name}", command.name);
            }
            assert!(own.lines().all(|line| line.chars().count() <= 100), "{own}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }
}
