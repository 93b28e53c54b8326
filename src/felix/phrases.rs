//! The meaning of the comments that Felix writes on its rules. Pure. Each distinct comment of a table is parsed once.
//!
//! Upstream: `felix/rules/endpoints.go`, `felix/rules/dispatch.go`, Calico 3.0 to 3.33.

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phrase {
    /// `Endpoint admin disabled`: the endpoint is administratively down, and this is its only rule.
    AdminDisabled,
    /// Bookkeeping of the packet rate limit (Calico ≥ 3.30).
    RateLimitMark,
    RateLimitDrop,
    ConnectionLimit,
    /// Drops VXLAN or IP-in-IP that a workload sends itself.
    Encapsulation,
    /// `Start of policies` (≤ 3.27), of the only tier.
    StartOfPolicies,
    /// `Start of tier …` (≥ 3.29).
    StartOfTier(Arc<str>),
    PolicyAccepted,
    /// Between the rules of a group: returns if a verdict has been reached.
    ReturnOnVerdict,
    /// Drops what no policy of the tier decided. Contains the tier's name since 3.30.
    NoPolicyMatched(Option<Arc<str>>),
    ProfileAccepted,
    NoProfileMatched,
    /// Ends a dispatch chain: the interface has no endpoint, or none yet.
    UnknownInterface,
    /// Lets forwarded traffic through if a host endpoint has no policy for it.
    ForwardAllowed,
    /// Anything else, such as the annotations of a policy's rule or the name of a policy.
    Other,
}

pub fn phrase(comment: &str) -> Phrase {
    match comment {
        "Endpoint admin disabled" => Phrase::AdminDisabled,
        "Start of policies" => Phrase::StartOfPolicies,
        "Return if policy accepted" => Phrase::PolicyAccepted,
        "Return on verdict" => Phrase::ReturnOnVerdict,
        "Return if profile accepted" => Phrase::ProfileAccepted,
        "Unknown interface" => Phrase::UnknownInterface,
        "Allow forwarded traffic by default" | "Return for accepted forward traffic" => Phrase::ForwardAllowed,
        _ => longer_phrase(comment),
    }
}

fn longer_phrase(comment: &str) -> Phrase {
    if let Some(tier) = comment.strip_prefix("Start of tier ") {
        return Phrase::StartOfTier(tier.into());
    }
    if comment.ends_with(" packet rate limit mark") || comment.starts_with("Mark packets within ") {
        return Phrase::RateLimitMark;
    }
    if comment.starts_with("Drop packets over ") && comment.ends_with(" packet rate limit") {
        return Phrase::RateLimitDrop;
    }
    // "End of tier default. Drop if no policies passed packet" since 3.30, without the tier before. "Reject …" since 3.26.
    let (first, last_sentence) = comment.rsplit_once(". ").unwrap_or(("", comment));
    match last_sentence.strip_prefix("Drop ").or_else(|| last_sentence.strip_prefix("Reject ")) {
        Some("if no policies passed packet") => Phrase::NoPolicyMatched(first.strip_prefix("End of tier ").map(Into::into)),
        Some("if no profiles matched") => Phrase::NoProfileMatched,
        Some(rest) if rest.ends_with(" connection limit") => Phrase::ConnectionLimit,
        // "… encapped packets originating in workloads", "… in pods" before 3.15.3.
        Some(rest) if rest.contains(" encapped packets originating in ") => Phrase::Encapsulation,
        _ => Phrase::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_of_every_release() {
        for (comment, expected) in [
            ("Endpoint admin disabled", Phrase::AdminDisabled),
            ("Clear ingress packet rate limit mark", Phrase::RateLimitMark),
            ("Mark packets within egress packet rate limit", Phrase::RateLimitMark),
            ("Drop packets over ingress packet rate limit", Phrase::RateLimitDrop),
            ("Reject connections over egress connection limit", Phrase::ConnectionLimit),
            ("Drop VXLAN encapped packets originating in pods", Phrase::Encapsulation),
            ("Reject IPinIP encapped packets originating in workloads", Phrase::Encapsulation),
            ("Start of policies", Phrase::StartOfPolicies),
            ("Start of tier kube-admin", Phrase::StartOfTier("kube-admin".into())),
            ("Return if policy accepted", Phrase::PolicyAccepted),
            ("Return on verdict", Phrase::ReturnOnVerdict),
            ("Drop if no policies passed packet", Phrase::NoPolicyMatched(None)),
            ("Reject if no policies passed packet", Phrase::NoPolicyMatched(None)),
            ("End of tier a.b. Reject if no policies passed packet", Phrase::NoPolicyMatched(Some("a.b".into()))),
            ("Return if profile accepted", Phrase::ProfileAccepted),
            ("Drop if no profiles matched", Phrase::NoProfileMatched),
            ("Reject if no profiles matched", Phrase::NoProfileMatched),
            ("Unknown interface", Phrase::UnknownInterface),
            ("Allow forwarded traffic by default", Phrase::ForwardAllowed),
            ("Policy default/knp.default.foo ingress", Phrase::Other),
            ("owner=Drop if no profiles matched", Phrase::Other),
        ] {
            assert_eq!(phrase(comment), expected, "{comment}");
        }
    }
}
