//! What Prometheus would read.

use std::collections::{BTreeMap, BTreeSet};

use super::edd::Edd;
use super::record::within;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| Sample::parse(line).unwrap_or_else(|| panic!("no sample: `{line}`"))).collect())
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has =
            |sample: &Sample, (label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|v| v == value);
        self.0.iter().filter(|sample| sample.name == name && labels.iter().all(|pair| has(sample, pair))).collect()
    }

    /// The sum over all series of `name` that have these labels; none when there is no such series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).iter().map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.0.len()
    }

    /// The names of the metrics.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|sample| sample.name.as_str()).collect()
    }

    /// The names of the labels of a metric; none when it has no series.
    pub fn label_names(&self, name: &str) -> Option<Vec<&str>> {
        let sample = *self.matching(name, &[]).first()?;
        Some(sample.labels.keys().map(String::as_str).collect())
    }

    /// Every value of a label, over all metrics.
    pub fn label_values(&self, label: &str) -> BTreeSet<&str> {
        self.0.iter().filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }
}

impl Sample {
    /// `name{label="value",…} number`; the values here hold no escapes.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
        };
        let mut pairs = BTreeMap::new();
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            pairs.insert(label.to_owned(), value.to_owned());
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        Some(Self { name: name.to_owned(), labels: pairs, value: value.parse().ok()? })
    }
}

impl Edd {
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(self.admin("/metrics").await.text())
    }

    /// Scrapes until `found` likes what it sees.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, found: impl Fn(&Metrics) -> bool) -> impl Future<Output = ()> {
        within(what, async move { while !found(&self.metrics().await) {} })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_summed() {
        let metrics = Metrics::parse("# HELP a b\na{x=\"1\",y=\"{ }\"} 2\na{x=\"1\",y=\"3\"} 1e1\nb 4\n");
        assert_eq!(metrics.value("a", &[("x", "1")]), Some(12.0));
        assert_eq!(metrics.value("a", &[("y", "{ }")]), Some(2.0));
        assert_eq!((metrics.value("b", &[]), metrics.value("c", &[])), (Some(4.0), None));
        assert_eq!(metrics.label_names("a"), Some(vec!["x", "y"]));
    }
}
