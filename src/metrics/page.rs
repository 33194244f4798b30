//! Writes metrics one after another, each with its description and all its samples.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::whole;
use crate::counters::Distribution;

/// A microsecond in seconds: what histograms of times count in.
pub(super) const MICROSECONDS: f64 = 1e-6;

/// Names and values of labels.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A page of metrics.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    pub(super) const fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A counter. `_total` is added to its name.
    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            labelled(&mut metric, &labels, |it| {
                it.encode_counter::<NoLabelSet, _, u64>(&value, None)
            })?;
        }
        Ok(())
    }

    /// A counter of seconds, without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    pub(super) fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            labelled(&mut metric, &labels, |it| it.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// A histogram whose values are whole numbers of `unit`.
    pub(super) fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        samples: impl IntoIterator<Item = (Labels<'l>, Distribution)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, values) in samples {
            let bounded = values.buckets.iter().map(|(_, count)| *count);
            let above = bounded.fold(values.count, u64::saturating_sub);
            let mut buckets: Vec<_> = values
                .buckets
                .iter()
                .map(|(bound, count)| (in_unit(*bound, unit), *count))
                .collect();
            buckets.push((f64::INFINITY, above));
            let sum = in_unit(values.sum, unit);
            labelled(&mut metric, &labels, |it| {
                it.encode_histogram::<NoLabelSet>(sum, values.count, &buckets, None)
            })?;
        }
        Ok(())
    }
}

fn labelled(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels<'_>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        encode(metric)
    } else {
        encode(&mut metric.encode_family(labels)?)
    }
}

/// By division where the unit is a part, so that 2,500 microseconds are 0.0025 s and not 0.0024999999999999996.
fn in_unit(value: u64, unit: f64) -> f64 {
    whole(value) / (1.0 / unit).round()
}
