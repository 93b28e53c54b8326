//! Cases of saved tables.

use serde_json::Value;

use super::{Case, Said};
use crate::support::scrape::{one, parse};

const WORKLOAD: &str = "cali751425ce827";

pub fn counters_went_back(case: &Case) -> Option<()> {
    for backend in ["legacy", "nft"] {
        let (before, now) = (format!("monday-{backend}.txt"), format!("tuesday-{backend}.txt"));
        let said = case.says(&["explain", WORKLOAD, "--before", &before, "--ruleset", &now]);
        let told = ["went back", "reboot", "rewritten", "began anew"].iter().any(|word| said.has_line(&[word]));
        assert!(said.code == Some(0) && told, "{backend}: {said:?}");
        let denied = said.out.lines().find(|line| line.contains("shop/web-allow")).unwrap().split_ascii_whitespace().rev().nth(1).unwrap();
        assert!(["60", "?", "<=60"].contains(&denied), "{backend}: {}", said.out);
        let undecided = said.out.lines().find(|line| line.contains("no policy decided")).unwrap();
        assert!(undecided.ends_with(" 25"), "{backend}: {undecided}");

        let explained = json(&case.says(&["explain", WORKLOAD, "--json", "--before", &before, "--ruleset", &now]));
        let policy = &explained["directions"][0]["tiers"][0]["targets"][0];
        assert!(policy["accept"] == 5 && (policy["deny"].is_null() || policy["deny"] == 60), "{backend}: {policy}");
        let ingress = &explained["workload"]["ingress"];
        assert!(ingress["dropped"] == 85 || ingress["exact"] == false, "{backend}: {ingress}");

        for command in ["top", "metrics"] {
            let swapped = case.says(&[command, "--before", &now, "--ruleset", &before]);
            assert!(swapped.code == Some(0) && swapped.has_line(&["went back", "cali-", "swapped"]), "{backend}: {swapped:?}");
        }
        let same = case.says(&["top", "--before", &now, "--ruleset", &now]);
        assert!(!same.has_line(&["went back"]), "{backend}: {same:?}");
    }
    Some(())
}

pub fn without_counters(case: &Case) -> Option<()> {
    for command in ["top", "metrics"] {
        let said = case.says(&[command, "--ruleset", "nft-sj.json"]);
        assert!(said.code == Some(1) && said.out.is_empty(), "{said:?}");
        assert!(said.has_line(&["nft-sj.json", "without their counters", "-s"]), "{said:?}");
    }
    Some(())
}

pub fn foreign_rule(case: &Case) -> Option<()> {
    let counts = |before: &str, now: &str| {
        let explained = json(&case.says(&["explain", WORKLOAD, "--json", "--before", before, "--ruleset", now]));
        let top = json(&case.says(&["top", "--json", "--before", before, "--ruleset", now]));
        (explained["directions"].clone(), top["workloads"].clone(), top["drops"].clone())
    };
    let (clean, with_foreign) = (counts("a.txt", "b.txt"), counts("ua.txt", "ub.txt"));
    let text = case.says(&["explain", WORKLOAD, "--before", "a.txt", "--ruleset", "b.txt"]).out;
    assert!(text.lines().any(|line| line.starts_with("sum, without open connections") && line.ends_with(" 32")), "{text}");
    assert_eq!(with_foreign, clean);
    Some(())
}

pub fn two_policies(case: &Case) -> Option<()> {
    let said = case.says(&["metrics", "--before", "two-policies.before", "--ruleset", "two-policies.after"]);
    let samples = parse(&said.out);
    let workload = [("interface", "cali1"), ("direction", "ingress")];
    for (policy, denied, passed) in [("default.p1", 10.0, 2.0), ("default.p2", 7.0, 1.0)] {
        let verdict = |verdict| [&workload[..], &[("policy", policy), ("verdict", verdict)]].concat();
        assert_eq!(one(&samples, "calico_accountant_policy_packets_total", &verdict("deny")), denied, "{policy}");
        assert_eq!(one(&samples, "calico_accountant_policy_packets_total", &verdict("pass")), passed, "{policy}");
    }
    let reason = [&workload[..], &[("reason", "policy")]].concat();
    assert_eq!(one(&samples, "calico_accountant_drop_packets_total", &reason), 17.0);
    Some(())
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}
