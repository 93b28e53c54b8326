//! The decoders on the corpora of fuzzing: they must not fail on any bytes, and must agree with each other.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// A target of `fuzz/`: the folder of its corpus, and its function.
type Target = (&'static str, fn(&[u8]));

#[test]
fn the_kept_corpora() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let targets: [Target; 11] = [
        ("legacy", targets::legacy),
        ("netlink", targets::netlink),
        ("text", targets::text),
        ("agree", targets::agree),
        ("etcd", targets::etcd),
        ("kubernetes", targets::kubernetes),
        ("kubeconfig", targets::kubeconfig),
        ("nft_json", targets::nft_json),
        ("saved", targets::saved),
        ("bpf_dump", targets::bpf_dump),
        ("http", targets::http),
    ];
    for (name, target) in targets {
        let files: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 20, "{name}");
        files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
    }
}

/// Parses tables made from pseudo-random bytes, in case the corpora are small.
#[test]
fn readers_agree_on_random_tables() {
    let mut random = crate::simulation::random::Random::new(1);
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        targets::agree(&bytes);
    }
}
