//! The meaning of each frame of a watch. Pure.

use super::error::{Refusal, refusal};
use super::messages::WatchFrame;
use crate::datastore::bounds::one_line;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub cluster: u64,
    /// The last revision that is completely known.
    pub revision: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Continue. The events, if there are any, must be applied.
    GoOn,
    Relist(String),
    Token(String),
    Denied,
    /// The stream has ended, or will never send anything again.
    Over(String),
}

/// Returns the meaning of `frame`, and advances `position`.
pub fn meaning(frame: &WatchFrame<'_>, position: &mut Position) -> Meaning {
    if let Some(error) = &frame.error {
        return ended(error.text(), error.code());
    }
    let Some(result) = &frame.result else { return Meaning::Over("a frame with neither result nor error".into()) };
    if result.header.cluster_id != 0 && result.header.cluster_id != position.cluster {
        return Meaning::Relist("another cluster answers".into());
    }
    // A cancelled watch reports it once. Then the stream stays open and silent.
    if result.canceled {
        return match result.compact_revision {
            0 => ended(&result.cancel_reason, 0),
            compacted => Meaning::Relist(format!("changes up to revision {compacted} have been compacted")),
        };
    }
    if result.created {
        // Sent before the promised history, so its revision is not completely known. But if the store is behind our position, it was
        // restored from a backup. It would send nothing until it has caught up, and then a different history.
        let behind = result.header.revision < position.revision;
        return match behind {
            true => Meaning::Relist(format!("etcd is at revision {}, before {}", result.header.revision, position.revision)),
            false => Meaning::GoOn,
        };
    }
    let known = result.events.iter().map(|event| event.kv.mod_revision).max().unwrap_or(result.header.revision);
    position.revision = position.revision.max(known);
    Meaning::GoOn
}

fn ended(reason: &str, code: u32) -> Meaning {
    let words = one_line(reason);
    match refusal(reason, code, 0) {
        Refusal::Token => Meaning::Token(words),
        // etcd 3.5.0–3.5.4 report this for a bad token too.
        Refusal::Denied => Meaning::Denied,
        Refusal::Revision => Meaning::Relist(words),
        _ if words.is_empty() => Meaning::Over("etcd cancelled the watch".to_owned()),
        _ => Meaning::Over(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(frame: &str) -> (Meaning, i64) {
        let mut position = Position { cluster: 7, revision: 100 };
        let meaning = meaning(&serde_json::from_str(frame).unwrap(), &mut position);
        (meaning, position.revision)
    }

    #[test]
    fn events_and_progress_move_the_position_but_a_creation_does_not() {
        let created = r#"{"result":{"header":{"cluster_id":"7","revision":"150"},"created":true}}"#;
        assert_eq!(said(created), (Meaning::GoOn, 100));
        let progress = r#"{"result":{"header":{"cluster_id":"7","revision":"150"}}}"#;
        assert_eq!(said(progress), (Meaning::GoOn, 150));
        let events = r#"{"result":{"header":{"cluster_id":"7","revision":"150"},"events":[{"kv":{"key":"YQ==","mod_revision":"101"}},
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"102"}}]}}"#;
        assert_eq!(said(events), (Meaning::GoOn, 102));
    }

    #[test]
    fn compaction_another_cluster_and_a_restored_backup_need_a_new_list() {
        for frame in [
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true,"compact_revision":"120"}}"#,
            r#"{"result":{"header":{"cluster_id":"8","revision":"150"},"created":true}}"#,
            r#"{"result":{"header":{"cluster_id":"7","revision":"99"},"created":true}}"#,
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true,"cancel_reason":"etcdserver: mvcc: required revision has been compacted"}}"#,
        ] {
            assert!(matches!(said(frame), (Meaning::Relist(_), 100)), "{frame}");
        }
        let level = r#"{"result":{"header":{"cluster_id":"7","revision":"100"},"created":true}}"#;
        assert_eq!(said(level).0, Meaning::GoOn);
    }

    #[test]
    fn cancellations_and_errors_end_the_watch() {
        let token = r#"{"result":{"header":{"cluster_id":"7"},"watch_id":"-1","created":true,"canceled":true,
            "cancel_reason":"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"}}"#;
        assert!(matches!(said(token).0, Meaning::Token(_)));
        let denied = r#"{"result":{"created":true,"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}"#;
        assert!(matches!(said(denied).0, Meaning::Denied));
        for frame in [
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing","http_status":"Service Unavailable"}}"#,
            r#"{"error":{"code":14, "message":"etcdserver: no leader"}}"#,
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true}}"#,
            "{}",
        ] {
            assert!(matches!(said(frame).0, Meaning::Over(_)), "{frame}");
        }
    }
}
