//! Which metrics are written, and which of their series.

use super::ConfigError;
use super::values::Values;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposition {
    pub names: MetricNames,
    pub zeros: ZeroSeries,
    pub families: Families,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricNames {
    #[default]
    All,
    /// The names of the Go exporter.
    Legacy,
    Standard,
}

/// The treatment of series that have counted nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroSeries {
    #[default]
    Keep,
    Omit,
}

const METRIC_NAMES: &[(&str, MetricNames)] =
    &[("all", MetricNames::All), ("legacy", MetricNames::Legacy), ("standard", MetricNames::Standard)];
const ZERO_SERIES: &[(&str, ZeroSeries)] = &[("keep", ZeroSeries::Keep), ("omit", ZeroSeries::Omit)];

/// The metrics that can be left out, without the common prefix `calico_accountant_` and the suffix `_total`. Metrics about the exporter
/// itself cannot be left out.
pub const FAMILIES: [&str; 15] = [
    "policy_packets",
    "profile_packets",
    "drop_packets",
    "established_packets",
    "workload_info",
    "workload_policy_info",
    "host_endpoint_policy_packets",
    "host_endpoint_drop_packets",
    "policy_info",
    "policy_group_info",
    "policy_rule_packets",
    "unknown_interface_drop_packets",
    "node_policy_packets",
    "node_drop_packets",
    "unknown_rule_packets",
];

/// A selection of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Families {
    left_out: Vec<&'static str>,
}

impl Families {
    /// Parses `NAME,NAME` (only these) or `-NAME,-NAME` (all except these).
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let are_left_out = words.iter().all(|word| word.starts_with('-'));
        let named = |word: &&str| match are_left_out {
            true => FAMILIES.into_iter().find(|family| word.strip_prefix('-') == Some(family)),
            false => FAMILIES.into_iter().find(|family| word == family),
        };
        let named = words.iter().map(named).collect::<Option<Vec<_>>>()?;
        let left_out = FAMILIES.into_iter().filter(|family| named.contains(family) == are_left_out);
        Some(Families { left_out: left_out.collect() })
    }

    /// `metric` is the full name.
    pub fn leave_out(&self, metric: &str) -> bool {
        let family = metric.strip_prefix("calico_accountant_").unwrap_or(metric);
        let family = family.strip_suffix("_total").unwrap_or(family);
        self.left_out.contains(&family)
    }
}

impl Exposition {
    pub(super) fn resolve(values: &Values<'_>) -> Result<Self, ConfigError> {
        let allowed = format!(
            "all, or names such as drop_packets,policy_info, or -drop_packets,-policy_info (all but these), of {}",
            FAMILIES.join(", ")
        );
        let families = values.parse("METRIC_FAMILIES", &allowed, |text| match text.eq_ignore_ascii_case("all") {
            true => Some(Families::default()),
            false => Families::parse(text),
        })?;
        Ok(Exposition {
            names: values.choice("METRIC_NAMES", METRIC_NAMES)?.unwrap_or_default(),
            zeros: values.choice("ZERO_SERIES", ZERO_SERIES)?.unwrap_or_default(),
            families: families.unwrap_or_default(),
        })
    }
}
