//! How far the clock of an authenticator is off (RFC 6238 §6): followed by its good codes, or found by two of them.

use super::{Parameters, Secret, generator, has_code, matching_step};
use crate::model::{Code, Drift, Period, Step, Timestamp, Window};

/// How far good codes alone move the drift. A clock that is farther off needs a resync.
const MAX_FOLLOWED_STEPS: u64 = 10;

/// The step that a code belongs to, and the drift that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) step: Step,
    pub(crate) drift: Drift,
}

/// Finds the step of a code within the window around the present step of the authenticator's own clock.
pub(crate) fn match_code(
    secret: &Secret,
    parameters: Parameters,
    drift: Drift,
    window: Window,
    code: &Code,
    now: Timestamp,
) -> Option<Match> {
    let present = now.step(parameters.period).shifted(drift);
    let step = matching_step(secret, parameters, window, code, present)?;
    let offset = step.number().saturating_sub(present.number());
    let drift = follow(drift, offset, window, parameters.period);
    Some(Match { step, drift })
}

/// The drift after a good code that was so many steps from the present one: one step nearer to it, but not beyond the
/// limit.
///
/// The drift stays if the window has not a step on either side. Such a window could follow a code that was only typed late,
/// and would not find its way back: the authenticator's present step would be outside.
fn follow(drift: Drift, offset: i64, window: Window, period: Period) -> Drift {
    let has_both_sides = window.steps() > 0 && window.steps_after(period) > 0;
    let Some(moved) = drift
        .steps()
        .checked_add(offset.signum())
        .filter(|_| has_both_sides)
        .and_then(Drift::from_steps)
    else {
        return drift;
    };
    let (before, after) = (drift.steps().unsigned_abs(), moved.steps().unsigned_abs());
    // A drift that a resync found may be larger, and may become smaller.
    if after <= MAX_FOLLOWED_STEPS || after < before {
        moved
    } else {
        drift
    }
}

/// Finds two codes in two steps that follow each other, both at most 20 steps from the present one. Returns the step of the
/// second, and its distance from the present step as the drift.
///
/// If they match twice, the match nearest to the present drift is returned: a clock more likely runs a little wrong than
/// jumps. All steps are compared for both codes whatever matches, because the time that it takes must not tell who guesses
/// that one of the codes belongs to a step to come.
pub(crate) fn match_two_codes(
    secret: &Secret,
    parameters: Parameters,
    drift: Drift,
    [first, second]: &[Code; 2],
    now: Timestamp,
) -> Option<Match> {
    let present = now.step(parameters.period).number();
    let generator = generator(secret, parameters);
    let mut found = None;
    for offset in -Drift::MAX_STEPS..Drift::MAX_STEPS {
        let step = present.saturating_add(offset);
        let next = step.saturating_add(1);
        let is_match = has_code(&generator, step, first) & has_code(&generator, next, second);
        let Some(new) = Drift::from_steps(offset.saturating_add(1)).filter(|_| is_match) else {
            continue;
        };
        let distance = |it: Drift| it.steps().abs_diff(drift.steps());
        if found.is_none_or(|it: Match| distance(new) < distance(it.drift)) {
            let step = Step::from_number(next);
            found = Some(Match { step, drift: new });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totp::code_at;

    const NOW_S: i64 = 1_795_453_575;

    fn secret() -> Secret {
        Secret::from_bytes(&[7; 20]).unwrap()
    }

    fn with_period(seconds: u16) -> Parameters {
        Parameters {
            period: Period::from_seconds(seconds).unwrap(),
            ..Parameters::ENROLMENT
        }
    }

    /// SECURITY.md 7: a drift moves by one step at a time, not beyond ten, and never where the window has not both sides.
    #[test]
    fn a_drift_follows_codes_at_the_edge_of_the_window() {
        for (period_s, window, before, offset, after) in [
            (30, Window::OneEitherSide, 0, 0, 0),
            (30, Window::OneEitherSide, 0, 1, 1),
            (30, Window::OneEitherSide, 0, -1, -1),
            (60, Window::OneEitherSide, 3, -1, 2),
            (10, Window::OneEitherSide, 9, 1, 10),
            (30, Window::OneEitherSide, 10, 1, 10),
            (30, Window::OneEitherSide, -10, -1, -10),
            (30, Window::OneEitherSide, -10, 1, -9),
            (30, Window::OneEitherSide, 20, 1, 20),
            (30, Window::OneEitherSide, 20, -1, 19),
            (61, Window::OneEitherSide, 0, -1, 0),
            (300, Window::OneEitherSide, 5, -1, 5),
            (30, Window::Present, 5, 0, 5),
        ] {
            let parameters = with_period(period_s);
            let drift = Drift::from_steps(before).unwrap();
            let now = Timestamp::from_seconds(NOW_S);
            let step = now.step(parameters.period).number() + before + offset;
            let code = code_at(&secret(), parameters, Step::from_number(step)).unwrap();
            let found = match_code(&secret(), parameters, drift, window, &code, now);
            let expected = Match {
                step: Step::from_number(step),
                drift: Drift::from_steps(after).unwrap(),
            };
            assert_eq!(found, Some(expected), "{period_s} s, {before}, {offset}");
        }
    }

    /// RFC 6238 §6
    #[test]
    fn two_codes_in_a_row_are_found_within_twenty_steps_either_side() {
        for period_s in [10, 30, 60, 300] {
            let parameters = with_period(period_s);
            let now = Timestamp::from_seconds(NOW_S);
            let present = now.step(parameters.period).number();
            let code = |offset: i64| {
                code_at(&secret(), parameters, Step::from_number(present + offset)).unwrap()
            };
            let found = |codes| match_two_codes(&secret(), parameters, Drift::NONE, &codes, now);
            for offset in -25..=25 {
                let matched = found([code(offset), code(offset + 1)]);
                let is_within = (-20..20).contains(&offset);
                let expected = is_within.then(|| Match {
                    step: Step::from_number(present + offset + 1),
                    drift: Drift::from_steps(offset + 1).unwrap(),
                });
                assert_eq!(matched, expected, "{period_s} s, {offset}");
            }
            assert_eq!(found([code(1), code(0)]), None, "the other way round");
            assert_eq!(found([code(0), code(0)]), None, "the same twice");
            assert_eq!(found([code(0), code(2)]), None, "not in a row");
        }
    }
}
