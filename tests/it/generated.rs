//! Files generated from the tables of settings and commands: shell completions and man pages under `deploy/`, and the tables of
//! `docs/configuration.md`. The tests fail if they are not up to date. `GOLDEN=write cargo test generated` writes them again.

mod man;

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::Shell;

use calico_accountant::config::commands::{CommandOption, OPTIONS, SUBCOMMANDS, Subcommand};
use calico_accountant::config::settings::{Group, SETTINGS, Setting};

use crate::support::can_run;

/// The whole command line as a clap command.
fn command_line() -> Command {
    let secrets: Vec<&str> = SETTINGS.iter().filter(|setting| setting.is_secret()).map(|setting| setting.name).collect();
    Command::new("calico-accountant")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Which Calico policy accepts or drops each workload's packets, and how many: a Prometheus exporter")
        .after_help(format!(
            "Every setting is an environment variable, too; the flag of the same name wins over it. Of the datastore's variables \
             CALICO_<NAME> comes first. Only variables, for every process can read command lines: {}.",
            secrets.join(", ")
        ))
        .disable_help_subcommand(true)
        .args(SETTINGS.iter().filter(|setting| !setting.is_secret()).map(setting))
        .subcommands(SUBCOMMANDS.iter().map(subcommand))
}

fn setting(setting: &Setting) -> Arg {
    let mut help = format!("{} Variable: {}.", setting.help, setting.name);
    if setting.group == Group::Unused {
        help = format!("Checked as Calico does, otherwise without effect. Variable: {}.", setting.name);
    }
    if let Some(default) = setting.default {
        help += &format!(" Default: {default}.");
    }
    value(Arg::new(setting.name).long(setting.flag()).help(help.trim().to_owned()).global(true), setting.value)
}

fn subcommand(subcommand: &Subcommand) -> Command {
    let options = OPTIONS.iter().filter(|option| subcommand.options.contains(&option.name)).map(option);
    let operand = subcommand.operand.map(|operand| Arg::new(operand).value_name(operand).required(true).help("Whose pipelines to show."));
    let about = format!("{}\n\n{}", subcommand.about, subcommand.more);
    Command::new(subcommand.name).about(subcommand.about).long_about(about.trim().to_owned()).args(options).args(operand)
}

fn option(option: &CommandOption) -> Arg {
    let mut arg = Arg::new(option.name).long(option.name).help(option.help);
    if let Some(short) = option.short {
        arg = arg.short(short);
    }
    match option.value {
        Some(name) if ["ruleset", "before"].contains(&option.name) => value(arg, name).action(ArgAction::Append),
        Some(name) => value(arg, name),
        None => arg.action(ArgAction::SetTrue),
    }
}

/// Sets what a value can be: one of a few words, a file, or anything.
fn value(arg: Arg, name: &'static str) -> Arg {
    match name {
        "file" | "path" | "paths" => arg.value_name(name).value_hint(ValueHint::AnyPath),
        "bool" => arg.value_name(name).value_parser(PossibleValuesParser::new(["true", "false"])),
        words if words.contains('|') => arg.value_name("word").value_parser(PossibleValuesParser::new(words.split('|'))),
        name => arg.value_name(name).value_hint(ValueHint::Other),
    }
}

/// `docs/configuration.md` with tables of the present settings.
fn configuration(page: &str) -> String {
    let (head, rest) = page.split_once(TABLES).expect("where the tables begin");
    let (_, tail) = rest.split_once(TABLES_END).expect("where the tables end");
    let mut tables = String::new();
    for (title, group) in [
        ("Exporter", Group::Exporter),
        ("Reading the kernel", Group::Kernel),
        ("Calico's datastore", Group::Datastore),
        ("Accepted without effect", Group::Unused),
    ] {
        tables += &format!("\n## {title}\n\n");
        tables += match group {
            Group::Unused => "Calico's own programs use these. They are checked and otherwise have no effect.\n\n",
            _ => "",
        };
        tables += "| variable | value | default | meaning |\n|---|---|---|---|\n";
        SETTINGS.iter().filter(|setting| setting.group == group).for_each(|setting| tables += &row(setting));
    }
    format!("{head}{TABLES}{tables}\n{TABLES_END}{tail}")
}

fn row(setting: &Setting) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*");
    let value = setting.value.split('|').map(|word| if setting.value.contains('|') { format!("`{word}`") } else { word.to_owned() });
    let value = value.collect::<Vec<_>>().join(", ");
    format!("| `{}` | {value} | {} | {} |\n", setting.name, cell(setting.default.unwrap_or("")), cell(setting.help))
}

const TABLES: &str = "<!-- The tables are generated from src/config/settings.rs: GOLDEN=write cargo test generated -->\n";
const TABLES_END: &str = "<!-- end of the generated tables -->";

/// Compares a file of the repository with what it should be, or writes it.
fn up_to_date(file: &Path, text: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read(&path).unwrap_or_default();
    assert!(found == text, "{} is not up to date: GOLDEN=write cargo test generated", file.display());
}

/// All generated files, by path under `deploy/`.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for (shell, name) in
        [(Shell::Bash, "calico-accountant.bash"), (Shell::Zsh, "_calico-accountant"), (Shell::Fish, "calico-accountant.fish")]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command_line(), "calico-accountant", &mut text);
        files.push((Path::new("completions").join(name), text));
    }
    files.extend(man::pages().into_iter().map(|(name, text)| (Path::new("man").join(name), text)));
    files
}

#[test]
fn completions_and_man_pages_are_up_to_date() {
    command_line().debug_assert();
    files().iter().for_each(|(file, text)| up_to_date(&Path::new("deploy").join(file), text));
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    let file = Path::new("docs/configuration.md");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    up_to_date(file, configuration(&page).as_bytes());
}

#[test]
fn mandoc_has_nothing_to_say_about_the_man_pages() {
    let found = Process::new("mandoc").arg("-V").output().is_ok();
    if !can_run("checking the man pages", found, "mandoc") {
        return;
    }
    for (name, _) in man::pages() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/man").join(&name);
        let lint = Process::new("mandoc").args(["-T", "lint", "-W", "all"]).arg(&path).output().unwrap();
        assert!(lint.status.success(), "{name}: {}", String::from_utf8_lossy(&lint.stdout));
        let shown = Process::new("mandoc").args(["-T", "ascii"]).arg(&path).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let without_bold: String =
            shown.chars().zip(shown.chars().skip(1)).filter(|(c, next)| *c != '\u{8}' && *next != '\u{8}').map(|(c, _)| c).collect();
        for section in ["SYNOPSIS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(without_bold.contains(&format!("\n{section}\n")), "{name}: {section} in {without_bold}");
        }
    }
}
