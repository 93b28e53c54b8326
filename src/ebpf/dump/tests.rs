use super::*;
use crate::ebpf::{Known, Owner, Rule};
use writer::Writer;

#[path = "../../../tests/it/support/dump.rs"]
mod writer;

impl Writer {
    /// A policy with these rules, all of which count.
    fn policy(self, name: &str, rules: &[(&str, u64)]) -> Self {
        let begun = self.comment(&format!("Start of {name}"));
        let written = rules.iter().fold(begun, |writer, (rule, id)| writer.rule(rule, *id));
        written.comment(&format!("End of {name}"))
    }
}

fn ingress(file: &[u8]) -> Program {
    parse(file, Name::parse("cali1_ingress_v4.json").unwrap()).unwrap()
}

/// Formats each rule as `id owner decision`, with a star if it does not count.
fn shown(program: &Program) -> Vec<String> {
    let rule = |rule: &Rule| {
        let Known { owner, decision, direction } = &rule.known;
        let owner = match owner {
            Owner::Policy(policy, index) => format!("{}|{}#{index}", policy.tier, policy.label),
            Owner::Profile(name) => format!("profile {}", name.as_deref().unwrap_or("?")),
            Owner::EndOfTier(tier) => format!("end of {tier}"),
            Owner::NoProfile => "no profile".into(),
        };
        let star = if rule.counts { "" } else { "*" };
        let side = if rule.is_workloads { "" } else { " host" };
        format!("{}{star} {owner} {decision:?} {direction:?}{side}", rule.id)
    };
    program.rules.iter().map(rule).collect()
}

#[test]
fn a_program_of_3_29() {
    let file = Writer::default()
        .label(WORKLOAD)
        .comment("Start of tier default")
        .policy(
            "policy shop/knp.default.web",
            &[(r#"action:"allow" protocol:{number:6} rule_id:"x""#, 11), (r#"action: "deny""#, u64::MAX - 1)],
        )
        .comment("Start of policy default.all")
        .rule_without_instructions(r#"action:"log""#, 13, false)
        .rule_without_instructions(r#"action:"allow" ip_version:IPV6"#, 14, false)
        .rule(r#"action:"pass""#, 15)
        .comment("End of policy default.all")
        .comment("End of tier default: deny")
        .record(0)
        .label("end_of_tier_0")
        .rule(r#"action:"allow""#, 16)
        .record(0)
        .file("cali1");
    let program = ingress(&file);
    assert!(program.is_workload && program.unrecognised == 0);
    let expected = [
        "11 default|shop/knp.default.web#0 Accept Ingress",
        "18446744073709551614 default|shop/knp.default.web#1 Deny Ingress",
        "13* default|default.all#0 Log Ingress",
        "14* default|default.all#1 Accept Ingress",
        "15 default|default.all#2 Pass Ingress",
        "0 end of default Deny Ingress",
        "16 profile ? Accept Ingress",
        "0 no profile Deny Ingress",
    ];
    assert_eq!(shown(&program), expected);
}

#[test]
fn a_program_of_3_32_behind_the_policies_of_all_interfaces() {
    let file = Writer::default()
        .comment("Start of tier security")
        .policy("GlobalNetworkPolicy guard 0", &[(r#"guard action:"deny""#, 21)])
        .comment("End of tier security: pass")
        .record(22)
        // A split program jumps here first.
        .label(WORKLOAD)
        .instruction([0; 8])
        .comment("##### Start of program 1 #####")
        .comment("Start of tier default")
        .policy("GlobalNetworkPolicy late 1", &[(r#"late action:"allow""#, 23)])
        .comment("End of tier default: deny")
        .record(24)
        .label(WORKLOAD)
        .comment("Start of tier kube-admin")
        .policy("KubernetesClusterNetworkPolicy first 2", &[(r#"first action:"next-tier""#, 25)])
        .policy("NetworkPolicy shop/web 3", &[(r#"shop/web action:"Allow""#, 26)])
        .comment("End of tier kube-admin: pass")
        .record(27)
        .rule(r#"kns.shop action:"allow""#, 28)
        .record(29)
        .file("cali1");
    let program = ingress(&file);
    assert!(program.is_workload && program.unrecognised == 0);
    let expected = [
        "21 security|guard#0 Deny Egress host",
        "22 end of security Pass Egress host",
        "23 default|default.late#0 Accept Egress host",
        "24 end of default Deny Egress host",
        "25 kube-admin|kcnp.first#0 Pass Ingress",
        "26 kube-admin|shop/web#0 Accept Ingress",
        "27 end of kube-admin Pass Ingress",
        "28 profile kns.shop Accept Ingress",
        "29 no profile Deny Ingress",
    ];
    assert_eq!(shown(&program), expected);
}

#[test]
fn a_hosts_own_interface_is_no_workload() {
    let policy = |writer: Writer| {
        let policy = writer.comment("Start of tier default").policy("policy default.hep", &[(r#"action:"deny""#, 31)]);
        policy.comment("End of tier default: deny").record(32)
    };
    for file in [policy(Writer::default()).label(WORKLOAD).file("cali1"), policy(Writer::default()).file("cali1")] {
        let program = ingress(&file);
        assert!(!program.is_workload);
        let expected = ["31 default|default.hep#0 Deny Ingress host", "32 end of default Deny Ingress host"];
        assert_eq!(shown(&program), expected);
    }
}

fn policies(program: &Program) -> Vec<(String, bool)> {
    program.policies.iter().map(|(policy, is_workloads)| (policy.label.to_string(), *is_workloads)).collect()
}

/// The host endpoint `*` with a policy that accepts everything, as Calico 3.32 writes it for `lo`. One instruction has the last rule's
/// comments, those of all unreachable rules, and the label.
fn all_hosts(writer: Writer) -> Writer {
    let policy = writer.comment("Start of tier default").policy("GlobalNetworkPolicy wild 0", &[(r#"wild action:"allow""#, 51)]);
    policy.comment("End of tier default: deny")
}

#[test]
fn the_last_rule_of_a_host_endpoint_is_not_the_workloads() {
    let unreached = r#"projectcalico-default-allow action:"allow""#;
    let host = all_hosts(Writer::default()).rule_without_instructions(unreached, 52, false).label(WORKLOAD).label("deny").file("cali1");
    let program = ingress(&host);
    assert!(!program.is_workload && program.unrecognised == 0);
    assert_eq!(
        shown(&program),
        ["51 default|default.wild#0 Accept Ingress host", "52* profile projectcalico-default-allow Accept Ingress host"]
    );

    let workloads = |writer: Writer| {
        let tier = writer.label(WORKLOAD).comment("Start of tier default");
        let policy = tier.policy("NetworkPolicy shop/web 1", &[(r#"shop/web action:"allow""#, 61)]);
        policy.comment("End of tier default: deny").record(62).file("cali1")
    };
    let program = ingress(&workloads(all_hosts(Writer::default())));
    assert!(program.is_workload && program.unrecognised == 0);
    let expected =
        ["51 default|default.wild#0 Accept Egress host", "61 default|shop/default.web#0 Accept Ingress", "62 end of default Deny Ingress"];
    assert_eq!(shown(&program), expected);
    assert_eq!(policies(&program), [("default.wild".into(), false), ("shop/default.web".into(), true)]);
}

#[test]
fn what_no_packet_reaches_is_not_what_follows_it() {
    // The workload has no policy, and its profile follows.
    let writer = || all_hosts(Writer::default()).label(WORKLOAD);
    let program = ingress(&writer().rule(r#"kns.shop action:"allow""#, 71).record(0).file("cali1"));
    assert_eq!(shown(&program)[1..], ["71 profile kns.shop Accept Ingress", "0 no profile Deny Ingress"]);
    // Not even a profile.
    let program = ingress(&writer().record(0).file("cali1"));
    assert_eq!(shown(&program)[1..], ["0 no profile Deny Ingress"]);
    assert_eq!(program.unrecognised, 0);
    // All of the host's second tier, and then a policy of the workload's that has no rules.
    let second = || writer().comment("Start of tier late").policy("GlobalNetworkPolicy b 1", &[]).comment("End of tier late: deny");
    let none = |writer: Writer| {
        writer.comment("Start of tier default").policy("NetworkPolicy shop/none 2", &[]).comment("End of tier default: deny")
    };
    let program = ingress(&none(second()).record(81).file("cali1"));
    assert_eq!(shown(&program)[1..], ["81 end of default Deny Ingress"]);
    assert_eq!(policies(&program)[1..], [("b".into(), false), ("shop/default.none".into(), true)]);
    // If nothing follows, an ID of 0 does not show which of the two it is.
    assert_eq!(ingress(&none(writer()).record(0).file("cali1")).unrecognised, 1);
    let profile = |writer: Writer| writer.rule_without_instructions(r#"action:"allow""#, 91, false).file("cali1");
    let program = ingress(&profile(none(writer()).record(0)));
    assert_eq!((shown(&program)[1].as_str(), program.unrecognised), ("0 end of default Deny Ingress", 0));

    // A tier whose end is unreachable except by a pass.
    let tier = Writer::default().label(WORKLOAD).comment("Start of tier a");
    let tier = tier.policy("policy a.p", &[(r#"action:"pass""#, 1), (r#"action:"deny""#, 2)]).comment("End of tier a: deny");
    assert_eq!(shown(&ingress(&tier.label("end_of_tier_0").record(0).file("cali1")))[2..], ["0 no profile Deny Ingress"]);
}

/// Up to 3.29 the comment does not say what the end of a tier does.
#[test]
fn what_a_tiers_end_does_shows_where_it_jumps_to() {
    let tier = || Writer::default().label(WORKLOAD).comment("Start of tier a").policy("policy a.p", &[]).comment("End of tier a").record(0);
    let end = |writer: Writer| shown(&ingress(&writer.file("cali1")))[0].clone();
    assert_eq!(end(tier().label("end_of_tier_0").rule(r#"action:"allow""#, 1)), "0 end of a Pass Ingress");
    assert_eq!(end(tier().label("deny").rule(r#"action:"allow""#, 1)), "0 end of a Deny Ingress");
}

#[test]
fn a_policy_without_a_name_is_not_enforced() {
    for nameless in ["  1", "policy "] {
        let tier = Writer::default().label(WORKLOAD).comment("Start of tier default");
        let tier = tier.policy("policy a", &[(r#"action:"allow""#, 1)]).policy(nameless, &[]);
        let file = tier.comment("End of tier default: deny").record(2).rule(r#"action:"pass""#, 3).record(0).file("cali1");
        let program = ingress(&file);
        assert_eq!((program.unrecognised, policies(&program).len()), (0, 1), "{nameless:?}");
        let expected = ["1 default|a#0 Accept Ingress", "2 end of default Deny Ingress"];
        assert_eq!(shown(&program)[..2], expected, "{nameless:?}");
        assert_eq!(shown(&program)[2], "3 profile ? Deny Ingress", "behind profiles there is nothing to pass on to");
    }
}

#[test]
fn xdp_programs_count_nothing() {
    let file = Writer::default().rule(r#"action:"deny""#, 1).file("eth0");
    assert!(!parse(&file, Name::parse("eth0_xdp_v4.json").unwrap()).unwrap().is_counted);
    assert!(parse(&file, Name::parse("eth0_ingress_v4.json").unwrap()).unwrap().is_counted);
}

#[test]
fn what_is_not_understood_is_counted_and_left_out() {
    let file = Writer::default()
        .label(WORKLOAD)
        .comment("Start of tier default")
        .policy("policy shop/default.web", &[(r#"action:"teleport""#, 41), (r#"protocol:{number:6}"#, 42), (r#"action:"allow""#, 43)])
        .comment("Start of something new")
        .record(44)
        // The comment has another ID than the instruction.
        .comment(r#"Start of rule action:"allow""#)
        .comment("Rule MatchID: 45")
        .record(46)
        .comment("End of rule x")
        .file("cali1");
    let program = ingress(&file);
    assert_eq!(program.unrecognised, 4);
    assert_eq!(shown(&program)[0], "43 default|shop/default.web#2 Accept Ingress", "the rules before it keep their places");
}

#[test]
fn files_that_are_no_programs() {
    let file = Writer::default().label(WORKLOAD).rule(r#"action:"allow""#, 1).file("cali1");
    let parse =
        |content: &[u8], interface| parse(content, Name { interface, direction: Direction::Egress, family: Family::V6, is_xdp: false });
    assert!(parse(&file, "cali1").is_ok());
    for length in 0..file.len() - 1 {
        assert!(parse(&file[..length], "cali1").is_err(), "cut at {length}");
    }
    assert!(parse(&file, "cali2").unwrap_err().contains("cali1"));
    let failed = br#"{"ifacename":"cali1","hook":"tc ingress","policyInfo":null,"error":"no memory"}"#;
    assert!(parse(failed, "cali1").unwrap_err().contains("no memory"));
    let wrong = br#"{"ifacename":"cali1","policyInfo":[{"inst":[1,2,3]}],"error":""}"#;
    assert!(parse(wrong, "cali1").is_err());
}

#[test]
fn names_of_files() {
    use Direction::{Egress, Ingress};
    for (name, expected) in [
        ("cali1_Ingress_v4.json", Some(("cali1", Ingress, Family::V4, false))),
        ("cali1_egress_v6.json", Some(("cali1", Egress, Family::V6, false))),
        ("eth0_xdp_v4.json", Some(("eth0", Ingress, Family::V4, true))),
        ("my_if_EGRESS_v4.json", Some(("my_if", Egress, Family::V4, false))),
        ("cali1_ingress_v5.json", None),
        ("cali1_ingress.json", None),
        ("_ingress_v4.json", None),
        ("cali1_sideways_v4.json", None),
        ("cali1_ingress_v4.json.tmp", None),
        ("", None),
    ] {
        let expected = expected.map(|(interface, direction, family, is_xdp)| Name { interface, direction, family, is_xdp });
        assert_eq!(Name::parse(name), expected, "{name}");
    }
}
