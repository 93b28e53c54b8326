use super::*;
use writer::Writer;

#[path = "../../tests/it/support/dump.rs"]
mod writer;

fn ingress(file: &[u8]) -> Program {
    parse(file, Name::parse("cali1_ingress_v4.json").unwrap()).unwrap()
}

/// `id owner decision`, one a line; with a star for what does not count.
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
        .comment("Start of policy shop/knp.default.web")
        .rule(r#"action:"allow" protocol:{number:6} rule_id:"x""#, 11)
        .rule(r#"action: "deny""#, u64::MAX - 1)
        .comment("End of policy shop/knp.default.web")
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
        .comment("Start of GlobalNetworkPolicy guard 0")
        .rule(r#"guard action:"deny""#, 21)
        .comment("End of GlobalNetworkPolicy guard 0")
        .comment("End of tier security: pass")
        .record(22)
        // A split program lands here first.
        .label(WORKLOAD)
        .instruction([0; 8])
        .comment("##### Start of program 1 #####")
        .comment("Start of tier default")
        .comment("Start of GlobalNetworkPolicy late 1")
        .rule(r#"late action:"allow""#, 23)
        .comment("End of GlobalNetworkPolicy late 1")
        .comment("End of tier default: deny")
        .record(24)
        .label(WORKLOAD)
        .comment("Start of tier kube-admin")
        .comment("Start of KubernetesClusterNetworkPolicy first 2")
        .rule(r#"first action:"next-tier""#, 25)
        .comment("End of KubernetesClusterNetworkPolicy first 2")
        .comment("Start of NetworkPolicy shop/web 3")
        .rule(r#"shop/web action:"Allow""#, 26)
        .comment("End of NetworkPolicy shop/web 3")
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
        let rule = writer.comment("Start of tier default").comment("Start of policy default.hep").rule(r#"action:"deny""#, 31);
        rule.comment("End of policy default.hep").comment("End of tier default: deny").record(32)
    };
    for file in [policy(Writer::default()).label(WORKLOAD).file("cali1"), policy(Writer::default()).file("cali1")] {
        let program = ingress(&file);
        assert!(!program.is_workload);
        let expected = ["31 default|default.hep#0 Deny Ingress host", "32 end of default Deny Ingress host"];
        assert_eq!(shown(&program), expected);
    }
}

#[test]
fn what_is_not_understood_is_counted_and_left_out() {
    let file = Writer::default()
        .label(WORKLOAD)
        .comment("Start of tier default")
        .comment("Start of policy shop/default.web")
        .rule(r#"action:"teleport""#, 41)
        .rule(r#"protocol:{number:6}"#, 42)
        .rule(r#"action:"allow""#, 43)
        .comment("End of policy shop/default.web")
        .comment("Start of something new")
        .record(44)
        // The comment says one id, the instruction another.
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
    let parse = |content: &[u8], interface| {
        parse(content, Name { interface, direction: Direction::Egress, family: Family::V6, is_xdp: false })
    };
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
