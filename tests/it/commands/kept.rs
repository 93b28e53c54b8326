//! Saved tables in the forms in which people keep them, made by the usual programs.

use super::*;

const EXPLAIN: [&str; 2] = ["explain", "cali751425ce827"];

/// Files in a folder of their own.
struct Kept(Scratch);

impl Kept {
    /// Writes a script's output to a file of the folder. Returns the option that names it.
    fn file(&self, name: &str, script: &str) -> String {
        let folder = self.0.path().display();
        sh(&format!("cd {folder}; ({script}) >{name}"));
        format!("--ruleset={folder}/{name}")
    }

    /// What `explain` prints for these files on standard output and standard error, without the folder's path.
    fn explain(&self, files: &[String]) -> (String, String) {
        let output = run(&EXPLAIN.into_iter().chain(files.iter().map(String::as_str)).collect::<Vec<_>>());
        let error = String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", self.0.path().display()), "");
        (String::from_utf8(output.stdout).unwrap(), error)
    }
}

#[test]
fn calicos_own_tables_are_read_in_any_form() {
    let Some(namespace) = Namespace::new("saved tables") else { return };
    let kept = Kept(Scratch::new());
    namespace.run(|| {
        for family in ["ip", "ip6"] {
            feed("nft -f -", &fixture::text(&format!("captures/v3.32.1-native/t2/nft-{family}.txt.gz")));
        }
        kept.file("tables.json", "nft -j list ruleset");
        kept.file("tables.txt", "nft -n -a list ruleset");
    });
    let (expected, error) = kept.explain(&[kept.file("plain", "cat tables.json")]);
    assert!(error.is_empty() && expected.contains("GlobalNetworkPolicy cluster-baseline"), "{error}{expected}");
    let long = "n".repeat(90);
    kept.file("notes", "echo nothing of use");
    sh(&format!("cd {}; mkdir -p {long}/{long}; cp tables.txt notes {long}/{long}", kept.0.path().display()));
    let defaulted = r#"echo 'Defaulted container "calico-node" out of: calico-node, install-cni (init)'"#;
    for script in [
        "cat tables.txt",
        "gzip -c tables.txt",
        "printf '\\357\\273\\277'; cat tables.txt",
        "printf '\\357\\273\\277'; cat tables.json",
        "iconv -t UTF-16 tables.txt",
        "printf '\\376\\377'; iconv -t UTF-16BE tables.json",
        &format!("{defaulted}; cat tables.txt"),
        &format!("{defaulted}; cat tables.json"),
        "sed 's/$/\\r/' tables.txt",
        "tar c notes tables.txt",
        "tar cz notes tables.json",
        &format!("tar c --format=gnu {long}"),
        &format!("tar c --format=posix {long}"),
    ] {
        assert_eq!(kept.explain(&[kept.file("kept", script)]), (expected.clone(), String::new()), "{script}");
    }
    let (out, error) = kept.explain(&[kept.file("kept", "xz -c notes >packed; tar c packed tables.txt")]);
    assert!(out == expected && error.contains("kept: packed: it is packed by xz; unpack it first: xz -d; it is left out"), "{error}");
    for (script, problem) in [
        ("xz -c tables.txt", "kept: it is packed by xz; unpack it first: xz -d"),
        ("zstd -c tables.txt", "kept: it is packed by zstd; unpack it first: zstd -d"),
        ("bzip2 -c tables.txt", "kept: it is packed by bzip2; unpack it first: bzip2 -d"),
        ("tar c notes", "kept: none of the 1 files in it is what iptables-save -c or nft list ruleset prints"),
        ("xz -c tables.txt >packed; tar c packed notes", "kept: packed: it is packed by xz; unpack it first: xz -d"),
        ("tar c tables.txt | head -c 20000", "kept: the tar ends within tables.txt"),
        ("tar c tables.txt | head -c -10240 | head -c 512 | sed s/0/x/g", "kept: the tar is damaged at tables.txt"),
        ("head -c 20000 tables.txt", "kept: the output ends within table ip calico"),
        ("head -c 20000 tables.txt >cut; tar c cut", "kept: cut: the output ends within table ip calico"),
        (
            "tar c tables.txt tables.json",
            "kept: tables.json: the table filter (ipv4) is also in kept: tables.txt; one moment has each table once",
        ),
    ] {
        let (out, error) = kept.explain(&[kept.file("kept", script)]);
        assert!(out.is_empty(), "{script}: {out}");
        assert_eq!(error, format!("calico-accountant: {problem}\n"), "{script}");
    }
}

/// Diagnostics of a node may hold both: the tables of iptables-nft as iptables and as nft print them, and IPv6 tables without Calico.
#[test]
fn what_holds_none_of_calicos_chains_may_stand_beside_what_does() {
    let Some(namespace) = Namespace::new("saved tables") else { return };
    let kept = Kept(Scratch::new());
    namespace.run(|| {
        let text = fixture::text("captures/v3.32.1-nft/t2/iptables-save.txt.gz");
        feed("ipset restore", &crate::kernel::sets(&text, calico_accountant::ruleset::Family::V4));
        feed("iptables-nft-restore -c", &text);
        sh("ip6tables-nft -A INPUT -p tcp -j ACCEPT");
        kept.file("v4", "iptables-nft-save -c");
        kept.file("v6", "ip6tables-nft-save -c");
        kept.file("nft", "nft -n -a list ruleset");
    });
    let [v4, v6, nft] = ["v4", "v6", "nft"].map(|name| format!("--ruleset={}/{name}", kept.0.path().display()));
    let (expected, error) = kept.explain(std::slice::from_ref(&v4));
    assert!(error.is_empty() && expected.contains("GlobalNetworkPolicy cluster-baseline"), "{error}{expected}");
    let tar = kept.file("tar", "tar cz v4 v6 nft");
    for files in [vec![v4.clone(), v6.clone()], vec![v6.clone(), v4, nft.clone()], vec![tar]] {
        let (out, error) = kept.explain(&files);
        assert_eq!(out, expected, "{files:?}");
        assert!(error.contains("v6: none of Calico's chains is in it; it is left out"), "{files:?}: {error}");
    }
    for (file, problem) in [(v6, "v6: none of Calico's chains is in it\n"), (nft, "nft: Calico's rules are in iptables-nft's tables,")] {
        let (out, error) = kept.explain(&[file]);
        assert!(out.is_empty() && error.starts_with(&format!("calico-accountant: {problem}")), "{error}");
    }
}
