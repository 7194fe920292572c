//! Paired figures: the median, and a 95 % confidence interval for it from order statistics (no assumption on the distribution).

use std::io::Write as _;

/// How many pairs to take: `$PAIRS`, or as many as the benchmark asks for.
#[must_use]
pub fn pairs(default: usize) -> usize {
    let given = std::env::var("PAIRS").ok().and_then(|text| text.parse().ok());
    given.filter(|pairs| *pairs > 0).unwrap_or(default)
}

/// Says the median of these values, and its interval.
///
/// # Panics
/// Without values, or a stdout.
pub fn say(what: &str, unit: &str, values: &[f64], goal: &str) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let half_width = (0.98 * (count as f64).sqrt()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let half_width = half_width as usize;
    let at = |place: usize| sorted.get(place.min(count - 1)).copied().unwrap_or(f64::NAN);
    let (low, high) = (at((count / 2).saturating_sub(half_width)), at(count / 2 + half_width));
    let median = at(count / 2);
    let line = format!(
        "{what}: median {median:.3} {unit}, 95 % interval {low:.3} to {high:.3} ({count} pairs; {goal})"
    );
    writeln!(std::io::stdout(), "{line}").expect("stdout");
}
