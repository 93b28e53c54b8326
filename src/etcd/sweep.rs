//! Finds the keys of interest in a range without reading all of them. Uses a function that requests a page of keys.
//!
//! A node's endpoints are spread over all namespaces: their keys are `<namespace>/<node>-…`. So if a page ends within a namespace, the next
//! request is for this node's keys in the rest of that namespace, and then for the next namespace. If namespaces are large, nearly all keys
//! of other nodes are never sent. If they are small, that would only mean more requests, each of which costs etcd as much as some hundred
//! keys. Then the pages grow until they are the larger part of the cost.

use super::kinds::Kind;
use super::messages::Span;

/// The size of the first pages. It is small, because the first namespaces show whether they can be skipped.
const FIRST_PAGE: u32 = 50;

pub(super) struct Page {
    pub keys: Vec<String>,
    pub read: u64,
    pub last: Option<Vec<u8>>,
    /// The number of keys in the span, from its start.
    pub count: u64,
    pub more: bool,
}

/// The rest of a group of keys, of which only a part is of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The span of the keys of interest in the group.
    pub own: Span,
    /// The first possible key after the group.
    pub next: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    pub largest: u32,
    /// The number of found keys after which the search stops.
    pub most: usize,
}

/// Returns all wanted keys of this kind, in order.
pub(super) fn keys<E>(
    kind: &impl Kind,
    Pages { largest, most }: Pages,
    mut ask: impl FnMut(&Span, u32) -> Result<Page, E>,
) -> Result<Vec<String>, E> {
    let mut found = Vec::new();
    let mut span = Span::prefix(kind.prefix());
    let mut limit = largest.min(FIRST_PAGE);
    // The number of keys that would remain if nothing had been skipped.
    let mut left = None;
    loop {
        let page = ask(&span, limit)?;
        if let Some(left) = left {
            limit = next_limit(limit, largest, page.count.abs_diff(left));
        }
        left = Some(page.count.saturating_sub(page.read));
        found.extend(page.keys.into_iter().filter(|key| kind.wants(key)));
        let Some(last) = page.last.filter(|_| page.more && found.len() <= most) else { return Ok(found) };
        span.from = [&last[..], b"\0"].concat();
        let Some(Group { mut own, next }) = str::from_utf8(&last).ok().and_then(|last| kind.group(last)) else {
            limit = largest;
            continue;
        };
        own.from = own.from.max(span.from);
        if own.from < own.end {
            // One node's part of one namespace always fits into an answer.
            found.extend(ask(&own, 0)?.keys.into_iter().filter(|key| kind.wants(key)));
        }
        span.from = next;
    }
}

/// Returns a smaller limit if more keys were skipped than read, otherwise a larger one.
fn next_limit(limit: u32, largest: u32, left_out: u64) -> u32 {
    if left_out < u64::from(limit) { limit.saturating_mul(2).min(largest) } else { (limit / 2).max(largest.min(FIRST_PAGE)) }
}

#[cfg(test)]
mod tests {
    use super::super::keys::WORKLOAD_ENDPOINTS;
    use super::super::kinds::Workloads;
    use super::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    /// Returns the result of a sweep of `stored`, and how many keys and requests it took.
    fn sweep(stored: &BTreeSet<String>, node: &str, largest: u32) -> (Vec<String>, usize, usize) {
        let (mut sent, mut questions) = (0, 0);
        let ask = |span: &Span, limit: u32| {
            let all: Vec<_> = stored.iter().filter(|key| key.as_bytes() >= &span.from[..] && key.as_bytes() < &span.end[..]).collect();
            let limit = if limit == 0 { all.len() } else { limit as usize };
            let keys: Vec<_> = all.iter().take(limit).map(|key| key.to_string()).collect();
            sent += keys.len();
            questions += 1;
            let (read, last) = (keys.len() as u64, keys.last().map(|key| key.clone().into_bytes()));
            Ok::<_, Infallible>(Page { count: all.len() as u64, more: all.len() > keys.len(), read, last, keys })
        };
        let Ok(found) = keys(&Workloads::new(node.into()), Pages { largest, most: usize::MAX }, ask);
        (found, sent, questions)
    }

    fn cluster(namespaces: usize, pods: usize, nodes: usize) -> BTreeSet<String> {
        let key = |namespace, pod| format!("{WORKLOAD_ENDPOINTS}ns-{namespace}/n--{}-k8s-pod--{pod}-eth0", (namespace * 7 + pod) % nodes);
        (0..namespaces).flat_map(|namespace| (0..pods).map(move |pod| key(namespace, pod))).collect()
    }

    #[track_caller]
    fn complete(stored: &BTreeSet<String>, node: &str, largest: u32) -> (usize, usize) {
        let (found, sent, questions) = sweep(stored, node, largest);
        let kind = Workloads::new(node.into());
        assert_eq!(found, stored.iter().filter(|key| kind.wants(key)).cloned().collect::<Vec<_>>(), "{node}, pages of {largest}");
        (sent, questions)
    }

    #[test]
    fn nothing_is_missed_and_nothing_found_twice() {
        for (namespaces, pods, nodes) in [(0, 0, 1), (1, 1, 1), (1, 300, 3), (40, 7, 5), (3, 120, 120), (200, 1, 2), (7, 51, 1)] {
            let stored = cluster(namespaces, pods, nodes);
            for largest in [1, 2, 3, 10, 50, 5000] {
                for node in ["n-0", "n-1", "n", "n-11", "nowhere", "a", "z"] {
                    complete(&stored, node, largest);
                }
            }
        }
    }

    #[test]
    fn names_that_sort_around_the_separators() {
        let rest = ["a/n-k8s-p-eth0", "a/n--1-k8s-p-eth0", "a/n.x-k8s-p-eth0", "a-b/n-k8s-p-eth0", "a0/n-k8s-p-eth0", "a.b/n-cni-p-eth0"];
        let stored = rest.iter().map(|rest| format!("{WORKLOAD_ENDPOINTS}{rest}")).collect();
        for largest in 1..8 {
            for node in ["n", "n-1", "n.x"] {
                complete(&stored, node, largest);
            }
        }
    }

    #[test]
    fn large_namespaces_are_left_out_and_small_ones_read_in_large_pages() {
        let (sent, questions) = complete(&cluster(20, 1000, 200), "n-3", 5000);
        assert!(sent < 1500 && questions <= 41, "{sent} keys in {questions} questions");
        let (sent, questions) = complete(&cluster(4000, 5, 200), "n-3", 5000);
        assert!(sent <= 20_100 && questions < 30, "{sent} keys in {questions} questions");
    }
}
