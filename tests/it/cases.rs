//! Small inputs that were once handled wrongly. Each has a folder in `tests/fixtures/cases`, with the expected result in `expected.txt`.
//! `cargo test --test it cases::` runs all of them.

mod live;
mod saved;
mod started;
mod textfile;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::program::command;
use crate::support::fixture;

/// Cases that are not handled yet. If one passes, its test fails, so that it is removed here.
const NOT_YET: &[&str] = &[];

/// A test for each case. A case returns `None` if it cannot run here.
macro_rules! cases {
    ($($folder:literal $name:ident in $module:ident;)*) => {
        $(#[test]
        fn $name() {
            Case($folder).run($module::$name);
        })*

        const FOLDERS: &[&str] = &[$($folder),*];
    };
}

cases! {
    "00-metrics-server-service-link" service_link in started;
    "02-before-reboot-or-rewrite" counters_went_back in saved;
    "03-textfile-process-metrics" node_exporter_takes_the_file in textfile;
    "04-textfile-umask" mode_of_the_file in textfile;
    "05-nodename-mismatch" another_node_name in started;
    "07-two-backends" two_backends in live;
    "08-no-rules-at-all" no_rules in live;
    "10-nft-stateless" without_counters in saved;
    "12-lock-is-a-directory" lock_is_a_directory in live;
    "20-foreign-rule" foreign_rule in saved;
    "21-two-policies" two_policies in saved;
}

#[test]
fn every_folder_has_its_case() {
    let found = std::fs::read_dir(fixture::path("cases")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(found.collect::<BTreeSet<_>>(), FOLDERS.iter().map(|&folder| folder.to_owned()).collect());
    assert!(NOT_YET.iter().all(|case| FOLDERS.contains(case)), "{NOT_YET:?}");
}

/// A folder of `tests/fixtures/cases`.
struct Case(&'static str);

impl Case {
    fn run(&self, behaves: fn(&Case) -> Option<()>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| behaves(self)));
        match (outcome, NOT_YET.contains(&self.0)) {
            (Ok(Some(())), true) => panic!("{} is handled now: remove it from NOT_YET", self.0),
            (Err(_), false) => panic!("{}: expected is\n{}", self.0, self.text("expected.txt")),
            _ => {}
        }
    }

    /// The path of one of its files.
    fn file(&self, name: &str) -> PathBuf {
        fixture::path("cases").join(self.0).join(name)
    }

    fn text(&self, name: &str) -> String {
        fixture::text(&format!("cases/{}/{name}", self.0))
    }

    /// The program in the case's folder, without a datastore, in the caller's network namespace.
    fn program(&self, args: &[&str]) -> Command {
        let mut program = command();
        program.current_dir(self.file("")).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        program.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/");
        program
    }

    /// What the program prints with these arguments.
    fn says(&self, args: &[&str]) -> Said {
        Said::of(&mut self.program(args))
    }
}

/// What a program printed.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(program: &mut Command) -> Self {
        let output = program.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Whether a line on either stream contains all these texts.
    fn has_line(&self, texts: &[&str]) -> bool {
        self.out.lines().chain(self.err.lines()).any(|line| texts.iter().all(|text| line.contains(text)))
    }
}
