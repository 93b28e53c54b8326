//! Felix's folders have mode 0600: which capabilities are needed to enter them, and what is printed without these.

use super::*;
use crate::support::can_run;

const FOUR: &str = "-all,+net_admin,+net_raw,+bpf,+dac_read_search";
/// Without `DAC_READ_SEARCH`, as a container had them before, and with `DAC_OVERRIDE`, as a user may try by hand.
const THREE: &str = "-all,+net_admin,+net_raw,+bpf";
const BY_HAND: &str = "-all,+net_admin,+net_raw,+bpf,+dac_override";

/// The program with these capabilities at most.
fn bounded(capabilities: &str) -> Command {
    let plain = command();
    let mut bounded = Command::new("setpriv");
    bounded.args(["--bounding-set", capabilities, "--inh-caps", "-all"]).arg(plain.get_program()).args(plain.get_args()).env_clear();
    bounded.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

#[test]
fn folders_of_mode_0600_are_entered_with_one_capability_and_not_without_it() {
    let test = "folders_of_mode_0600_are_entered_with_one_capability_and_not_without_it";
    if !can_run(test, Command::new("setpriv").arg("true").status().is_ok(), "setpriv") {
        return;
    }
    on_a_node(test, || {
        let map = rules();
        workload("cali1", &[WEB]);
        map.set(ACCEPT_WEB, &[5], &[]);
        let check = |capabilities: &str| {
            let output = bounded(capabilities).arg("check").output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let program = Program::start(bounded(FOUR));
        let samples = scrape(program.port());
        assert_eq!((rule(&samples, "shop/knp.default.web", "0"), unknown(&samples)), (5.0, 0.0), "{:?}", program.log());
        let (code, text) = check(FOUR);
        assert!(code == Some(0) && text.contains("describes them all"), "{code:?} {text}");
        // Felix may replace the folder and its files at any time.
        fs::remove_dir_all("/run/calico/bpf").unwrap();
        felix_folders();
        dump("cali1", "ingress", &[WEB, ALL]);
        dump("cali1", "egress", &[]);
        sh(&format!("chmod 600 {POLICY}/*"));
        map.set(ACCEPT_ALL, &[2], &[]);
        assert_eq!(rule(&scrape(program.port()), "default.all", "0"), 2.0);

        for capabilities in [THREE, BY_HAND] {
            let program = Program::start(bounded(capabilities));
            assert_eq!(unknown(&scrape(program.port())), 7.0, "{capabilities}");
            let line = program.await_log("without these files the policies of the rules are unknown");
            assert!(line.contains("/run/calico/bpf/policy") && line.contains("DAC_READ_SEARCH"), "{line}");
            let (code, text) = check(capabilities);
            assert!(code == Some(1) && text.contains("add the capability DAC_READ_SEARCH"), "{capabilities}: {code:?} {text}");
        }
    });
}
