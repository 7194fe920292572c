//! The report for machines.

use super::Report;

/// The report as one JSON document with a newline at its end.
///
/// # Panics
/// Never: every key is a string and every number finite.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_else(|error| {
        // Nothing in the model can fail to serialise; say so rather than write half a document.
        format!("{{\"schema\":\"{}\",\"verdict\":\"inconclusive\",\"reasons\":[\"{error}\"]}}", super::SCHEMA)
    });
    text.push('\n');
    text
}
