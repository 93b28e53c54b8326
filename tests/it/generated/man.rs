//! Renders the tables of commands and settings as man pages, in the macros of man(7).

use calico_accountant::config::commands::{OPTIONS, SUBCOMMANDS, Subcommand};
use calico_accountant::config::settings::{Group, SETTINGS, Setting};

/// The date of the pages. It is fixed, so that the same source gives the same pages.
const DATE: &str = "2026-11-27";
const NAME: &str = "calico-accountant";
const ABOUT: &str = "Tells which Calico policy accepts or drops each workload's packets";

/// The exit statuses that all commands have.
const EXIT: [(&str, &str); 3] = [
    ("0", "Done; or ended by SIGTERM or SIGINT."),
    (
        "1",
        "Failed. Also if what is shown is not all that was asked for: the counters could not be read, a node did not answer, \
         or check found something wrong.",
    ),
    ("2", "Wrong command, flag or variable."),
];

/// The text of a page.
struct Page(String);

impl Page {
    fn new(name: &str, about: &str) -> Self {
        let mut page = Page(String::new());
        let version = env!("CARGO_PKG_VERSION");
        page.line(&format!(".TH {} 1 {DATE} \"{NAME} {version}\"", escaped(&name.to_uppercase())));
        page.section("NAME");
        let mut about = about.trim_end_matches('.').to_owned();
        // Lower case, as usual in lists of man pages.
        about[..1].make_ascii_lowercase();
        page.line(&format!("{} \\-", escaped(name)));
        page.text(&about);
        page
    }

    fn line(&mut self, line: &str) {
        self.0 += line;
        self.0.push('\n');
    }

    fn section(&mut self, name: &str) {
        self.line(&format!(".SH {name}"));
    }

    /// Adds text in lines of less than 80 columns, which mandoc's lint requires.
    fn text(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            let word = escaped(word);
            if !line.is_empty() && line.len() + 1 + word.len() > 78 {
                self.line(&std::mem::take(&mut line));
            }
            line += if line.is_empty() { "" } else { " " };
            line += if line.is_empty() && word.starts_with(['.', '\'']) { "\\&" } else { "" };
            line += &word;
        }
        self.line(&line);
    }

    /// Adds a term and its meaning.
    fn term(&mut self, term: &str, text: &str) {
        self.line(".TP");
        self.line(term);
        self.text(text);
    }

    fn example(&mut self, what: &str, line: &str) {
        if !self.0.ends_with("EXAMPLES\n") {
            self.line(".PP");
        }
        self.text(&format!("{what}:"));
        [".PP", ".in +4", ".nf", &format!("{NAME} {}", escaped(line)), ".fi", ".in"].iter().for_each(|line| self.line(line));
    }

    /// Adds the section that every page ends with.
    fn end(mut self, others: &[String]) -> Vec<u8> {
        self.section("SEE ALSO");
        for (place, other) in others.iter().enumerate() {
            let comma = if place + 1 < others.len() { " ," } else { "" };
            self.line(&format!(".BR {} (1){comma}", escaped(other)));
        }
        self.0.replace(") ,", "),").into_bytes()
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// An option, such as `-n`, `--namespace` and the placeholder of its value.
fn flag(short: Option<char>, name: &str, value: Option<&str>) -> String {
    let short = short.map(|short| format!("\\-{short}\\fR, \\fB")).unwrap_or_default();
    let value = value.map(|value| format!(" \\fI{}\\fR", escaped(value))).unwrap_or_default();
    format!("\\fB{short}\\-\\-{}\\fR{value}", escaped(name))
}

fn exit(page: &mut Page) {
    page.section("EXIT STATUS");
    EXIT.iter().for_each(|(status, text)| page.term(&format!(".B {status}"), text));
}

fn page_of(command: &Subcommand) -> String {
    format!("{NAME}-{}", command.name)
}

/// All pages, as file names and texts.
pub fn pages() -> Vec<(String, Vec<u8>)> {
    let mut pages = vec![(format!("{NAME}.1"), whole())];
    pages.extend(SUBCOMMANDS.iter().map(|command| (format!("{}.1", page_of(command)), of(command))));
    pages
}

fn of(command: &Subcommand) -> Vec<u8> {
    let mut page = Page::new(&page_of(command), command.about);
    page.section("SYNOPSIS");
    page.line(&format!(".B {NAME} {}", command.name).replace(NAME, &escaped(NAME)));
    page.line("[\\fIflags\\fR]");
    match command.operand {
        Some(operand) if operand.starts_with('[') => page.line(&format!("[\\fI{}\\fR]", operand.trim_matches(['[', ']']))),
        Some(operand) => page.line(&format!("\\fI{operand}\\fR")),
        None => {}
    }
    page.section("DESCRIPTION");
    page.text(command.about);
    if !command.more.is_empty() {
        page.line(".PP");
        page.text(command.more);
    }
    page.section("OPTIONS");
    for option in OPTIONS.iter().filter(|option| command.options.contains(&option.name)) {
        page.term(&flag(option.short, option.name, option.value), option.help);
    }
    page.term("\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Print a summary of this.");
    page.line(".PP");
    page.text(&format!("All settings of the exporter hold here too: {NAME}(1) lists them."));
    exit(&mut page);
    page.section("EXAMPLES");
    command.examples.iter().for_each(|(what, line)| page.example(what, line));
    page.end(&[NAME.to_owned()])
}

fn whole() -> Vec<u8> {
    let mut page = Page::new(NAME, ABOUT);
    page.section("SYNOPSIS");
    page.line(&format!(".B {}", escaped(NAME)));
    page.line("[\\fIcommand\\fR] [\\fIflags\\fR]");
    page.section("DESCRIPTION");
    page.text(
        "Reads the packet counters of the rules that Calico's Felix programs on a node, and tells per workload, direction and policy what was \
         accepted, denied, and dropped because no policy matched: as metrics, as a page, and by these commands. Without a command it serves.",
    );
    for command in SUBCOMMANDS {
        let operand = command.operand.map(|operand| format!(" \\fI{operand}\\fR")).unwrap_or_default();
        page.term(&format!("\\fB{}\\fR{operand}", command.name), command.about);
    }
    page.section("OPTIONS");
    page.text("Every setting is an environment variable, too; the flag of the same name wins over it.");
    for setting in SETTINGS.iter().filter(|setting| !setting.is_secret()) {
        page.term(&flag(None, &setting.flag(), Some(setting.value)), &said(setting));
    }
    page.term("\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Print a summary of this.");
    page.term("\\fB\\-V\\fR, \\fB\\-\\-version\\fR", "Print the version.");
    page.section("ENVIRONMENT");
    page.text("The variables of the settings above. Of the datastore's, CALICO_<NAME> comes first and hides <NAME>, even if it is set to nothing.");
    for setting in SETTINGS.iter().filter(|setting| setting.is_secret()) {
        page.term(&format!(".B {}", setting.name), setting.help);
    }
    exit(&mut page);
    page.section("EXAMPLES");
    for command in SUBCOMMANDS {
        command.examples.iter().take(1).for_each(|(what, line)| page.example(what, line));
    }
    page.end(&SUBCOMMANDS.iter().map(page_of).collect::<Vec<_>>())
}

fn said(setting: &Setting) -> String {
    let help = if setting.group == Group::Unused { "Checked as Calico does, otherwise without effect." } else { setting.help };
    let default = setting.default.map(|default| format!(" Default: {default}.")).unwrap_or_default();
    format!("{help} Variable: {}.{default}", setting.name)
}
