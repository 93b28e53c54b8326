//! Generates tables of any size in the style of Calico 3.27, with counters, and the matching workloads.

use std::fmt::Write;

/// The size of a node.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub workloads: usize,
    pub policies: usize,
    /// The number of policies that share a group chain (Calico ≥ 3.28). With 1, each has its own jump.
    pub group: usize,
}

pub fn interface(workload: usize) -> String {
    format!("cali{workload:011x}")
}

/// Appends rules, each with its own hash and counters.
struct Rules {
    text: String,
    count: u64,
    round: u64,
}

impl Rules {
    fn add(&mut self, chain: &str, matches_before: &str, comment: &str, rest: &str) {
        self.count += 1;
        // The numbers are arbitrary, but have as many digits as real ones.
        let packets = self.count.wrapping_mul(2_654_435_761) % 10_000_000 + self.round * (1 + self.count % 9);
        let comment = if comment.is_empty() { String::new() } else { format!(" -m comment --comment \"{comment}\"") };
        let (hash, bytes) = (self.count, packets * 60);
        _ = writeln!(self.text, "[{packets}:{bytes}] -A {chain}{matches_before} -m comment --comment \"cali:{hash:016x}\"{comment} {rest}");
    }
}

/// Returns the text for iptables-restore.
pub fn table(size: Size) -> String {
    table_at(size, 0)
}

/// Returns the table some time later, when every rule has counted more.
pub fn table_at(size: Size, round: u64) -> String {
    let mut rules = Rules { text: String::new(), count: 0, round };
    let mut chains = String::from("*filter\n");
    for policy in 0..size.policies {
        for direction in ["pi", "po"] {
            let chain = policy_chain(direction, policy);
            _ = writeln!(chains, ":{chain} - [0:0]");
            policy_rules(&mut rules, &chain, direction, policy);
        }
    }
    if size.group > 1 {
        for (direction, policies) in [("gi", "pi"), ("go", "po")] {
            for group in 0..size.policies / size.group {
                let chain = format!("cali-{direction}-bench{group:015}");
                _ = writeln!(chains, ":{chain} - [0:0]");
                for policy in 0..size.group {
                    let target = policy_chain(policies, group * size.group + policy);
                    rules.add(&chain, "", "", &format!("-m mark --mark 0x0/0x30000 -j {target}"));
                }
            }
        }
    }
    for direction in ["pri", "pro"] {
        let chain = format!("cali-{direction}-kns.bench");
        _ = writeln!(chains, ":{chain} - [0:0]");
        rules.add(&chain, "", "", "-j MARK --set-xmark 0x10000/0x10000");
        rules.add(&chain, "", "", "-m mark --mark 0x10000/0x10000 -j RETURN");
    }
    for workload in 0..size.workloads {
        for (prefix, direction) in [("tw", "i"), ("fw", "o")] {
            let chain = format!("cali-{prefix}-{}", interface(workload));
            _ = writeln!(chains, ":{chain} - [0:0]");
            workload_rules(&mut rules, &chain, direction, size);
        }
    }
    format!("{chains}{}COMMIT\n", rules.text)
}

fn policy_chain(direction: &str, policy: usize) -> String {
    format!("cali-{direction}-_bench{policy:012}")
}

fn policy_rules(rules: &mut Rules, chain: &str, direction: &str, policy: usize) {
    let direction = if direction == "pi" { "ingress" } else { "egress" };
    let name = format!("Policy bench/knp.default.policy-number-{policy:03} {direction}");
    rules.add(chain, " -s 10.0.0.0/16", &name, "-j MARK --set-xmark 0x10000/0x10000");
    rules.add(chain, "", "", "-m mark --mark 0x10000/0x10000 -j RETURN");
    // Every fifth policy denies something too.
    if policy.is_multiple_of(5) {
        rules.add(chain, " -s 10.9.0.0/16", "", "-j DROP");
    }
}

fn workload_rules(rules: &mut Rules, chain: &str, direction: &str, size: Size) {
    rules.add(chain, "", "", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    rules.add(chain, "", "", "-m conntrack --ctstate INVALID -j DROP");
    rules.add(chain, "", "", "-j MARK --set-xmark 0x0/0x10000");
    rules.add(chain, "", "Start of policies", "-j MARK --set-xmark 0x0/0x20000");
    for target in 0..size.policies / size.group {
        let target = match size.group {
            1 => policy_chain(if direction == "i" { "pi" } else { "po" }, target),
            _ => format!("cali-g{direction}-bench{target:015}"),
        };
        rules.add(chain, "", "", &format!("-m mark --mark 0x0/0x20000 -j {target}"));
        rules.add(chain, "", "Return if policy accepted", "-m mark --mark 0x10000/0x10000 -j RETURN");
    }
    rules.add(chain, "", "Drop if no policies passed packet", "-m mark --mark 0x0/0x20000 -j DROP");
    rules.add(chain, "", "", &format!("-j cali-pr{direction}-kns.bench"));
    rules.add(chain, "", "Return if profile accepted", "-m mark --mark 0x10000/0x10000 -j RETURN");
    rules.add(chain, "", "Drop if no profiles matched", "-j DROP");
}

/// Returns the same as Calico's own nftables table, for `nft -f`.
pub fn native(size: Size) -> String {
    let text = table(size);
    let mut out = String::from("table ip calico {\n");
    for chain in text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()) {
        _ = writeln!(out, "chain filter-{chain} {{");
        let prefix = format!(" -A {chain} ");
        let rules = text.lines().filter_map(|line| line.split_once(&prefix));
        rules.for_each(|(counters, rule)| _ = writeln!(out, "{}", native_rule(counters, rule)));
        out.push_str("}\n");
    }
    out + "}\n"
}

/// Converts `[7:420]` and the rest of a rule after its chain to nft's language.
fn native_rule(counters: &str, rule: &str) -> String {
    let (packets, bytes) = counters.trim_matches(['[', ']']).split_once(':').expect("counters");
    let after = |option: &str| rule.split_once(option).map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    let mark = |text: &str| text.split_once('/').map(|(value, mask)| (value.to_owned(), mask.to_owned())).expect("a mask");
    let comments: Vec<&str> = rule.split("--comment \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut matches = after("-s ").map(|source| format!("ip saddr {source} ")).unwrap_or_default();
    if let Some(states) = after("--ctstate ") {
        matches += &format!("ct state {} ", states.to_lowercase());
    }
    if let Some((value, mask)) = after("--mark ").map(mark) {
        matches += &format!("meta mark & {mask} == {value} ");
    }
    let target = match (after("-j ").expect("a target"), after("--set-xmark ").map(mark)) {
        (_, Some((value, mask))) if value == "0x0" => {
            let mask = u32::from_str_radix(&mask[2..], 16).expect("a mask");
            format!("meta mark set meta mark & {:#x}", !mask)
        }
        (_, Some((value, _))) => format!("meta mark set meta mark | {value}"),
        (chain, None) if chain.starts_with("cali-") => format!("jump filter-{chain}"),
        (verdict, None) => verdict.to_lowercase(),
    };
    let comment = comments[1..].join(" ");
    format!("{matches}counter packets {packets} bytes {bytes} {target} comment \"{}; {comment}\"", comments[0])
}

/// Returns the datastore's key and value of a workload on node-1.
pub fn workload(workload: usize) -> (String, String) {
    let (interface, pod) = (interface(workload), format!("app-{workload}-7d9c5bb7f6-x{workload:04}"));
    let name = format!("node--1-k8s-{}-eth0", pod.replace('-', "--"));
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"bench","labels":{{"app":"app-{workload}"}}}},"spec":{{"orchestrator":"k8s","node":"node-1","pod":"{pod}","endpoint":"eth0","ipNetworks":["10.0.{}.{}/32"],"interfaceName":"{interface}"}}}}"#,
        workload / 250,
        workload % 250
    );
    (format!("/calico/resources/v3/projectcalico.org/workloadendpoints/bench/{name}"), value)
}

/// Returns the datastore's key and value of a policy with the name that its chains have, because the Go exporter knows no other names.
pub fn policy(policy: usize) -> (String, String) {
    let chain = policy_chain("pi", policy);
    let name = chain.trim_start_matches("cali-pi-");
    let value =
        format!(r#"{{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{}}}}"#);
    (format!("/calico/resources/v3/projectcalico.org/globalnetworkpolicies/{name}"), value)
}
