//! The floor of an authenticator at a given time, as SQL: each row has a period and a drift of its own.

/// The last step whose code could be good at a time, given as the parameter of its seconds since 1970. SECURITY.md 39
///
/// The clock of the authenticator may be off as far as is known, or have been put right since. The window is the widest,
/// because it may have been narrowed since (`Window::steps_after`).
macro_rules! floor {
    ($seconds:literal) => {
        concat!(
            "(max(",
            $seconds,
            ", 0) / totp.period_s + max(totp.drift_steps, 0) + (totp.period_s <= 60))"
        )
    };
}

pub(super) use floor;

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::model::{Drift, Period, Timestamp, Window};

    /// SECURITY.md 39
    #[test]
    fn the_floor_in_sql_is_the_last_step_of_the_widest_window() {
        const SQL: &str = concat!(
            "SELECT ",
            floor!("?1"),
            " FROM (SELECT ?2 AS period_s, ?3 AS drift_steps) AS totp"
        );
        let connection = Connection::open_in_memory().unwrap();
        for period_s in [10, 30, 59, 60, 61, 300] {
            for drift in [-20, -1, 0, 1, 20] {
                for seconds in [-5, 0, 59, 60, 1_795_453_579] {
                    let period = Period::from_seconds(period_s).unwrap();
                    let steps_after = i64::from(Window::OneEitherSide.steps_after(period));
                    let expected = |drift: i64| {
                        let drift = Drift::from_steps(drift).unwrap();
                        let now = Timestamp::from_seconds(seconds).step(period);
                        now.shifted(drift).number() + steps_after
                    };
                    let row = (seconds, period_s, drift);
                    let floor: i64 = connection.query_row(SQL, row, |row| row.get(0)).unwrap();
                    assert_eq!(
                        floor,
                        expected(drift.max(0)),
                        "{seconds} {period_s} {drift}"
                    );
                    assert!(floor >= expected(drift));
                }
            }
        }
    }
}
