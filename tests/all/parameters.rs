//! Authenticators whose hash, number of digits or period differ from totpd's own. SECURITY.md 1, 7, 32, 35, 39.

use rusqlite::Connection;
use totpd::model::{Period, Step, Timestamp, UserId};
use totpd::service::Verdict;
use totpd::totp::{Algorithm, Parameters, code_at};

use crate::harness::Phone;
use crate::node::{FORCE, Node};

/// Hash, digits and period, and the last step of the window.
const KINDS: [(Algorithm, u8, u16, i64); 5] = [
    (Algorithm::Sha1, 6, 30, 1),
    (Algorithm::Sha256, 8, 10, 1),
    (Algorithm::Sha512, 7, 60, 1),
    (Algorithm::Sha1, 9, 61, 0),
    (Algorithm::Sha512, 6, 300, 0),
];

/// An authenticator of another program, as an import stores it.
struct Token {
    phone: Phone,
    parameters: Parameters,
}

impl Token {
    /// Enrols an authenticator and changes it to one with these parameters that has used no code.
    fn new(
        node: &mut Node,
        user: &UserId,
        (algorithm, digits, period_s, _): (Algorithm, u8, u16, i64),
    ) -> Self {
        let phone = node.enrol(user);
        let name = format!("{algorithm:?}").to_uppercase();
        let id = &phone.id;
        let sql = format!(
            "UPDATE totp SET algorithm = '{name}', digits = {digits}, period_s = {period_s}, last_step = -1 WHERE id = '{id}'"
        );
        change(node, &sql);
        let period = Period::from_seconds(period_s).unwrap();
        let parameters = Parameters {
            algorithm,
            digits,
            period,
        };
        Self { phone, parameters }
    }

    fn step(&self, now: Timestamp) -> i64 {
        now.step(self.parameters.period).number()
    }

    fn code_of(&self, step: i64) -> String {
        let code = code_at(&self.phone.secret, self.parameters, Step::from_number(step));
        code.unwrap().digits().to_owned()
    }

    fn period_s(&self) -> i64 {
        self.parameters.period.seconds().into()
    }

    /// The middle of a step.
    fn middle_of(&self, step: i64) -> Timestamp {
        Timestamp::from_seconds(step * self.period_s() + self.period_s() / 2)
    }
}

fn change(node: &Node, sql: &str) {
    let database = Connection::open(node.file("totpd.db")).unwrap();
    assert_eq!(database.execute(sql, ()).unwrap(), 1);
}

fn is_good(node: &Node, user: &UserId, code: &str) -> bool {
    matches!(node.check(user, code).unwrap(), Verdict::Accepted(_))
}

/// SECURITY.md 1, 7
#[test]
fn the_window_and_the_replay_are_judged_by_the_authenticators_own_period() {
    for kind in KINDS {
        let last = kind.3;
        for offset in -2..=2 {
            let mut node = Node::new();
            let alice = node.user("alice");
            let token = Token::new(&mut node, &alice, kind);
            let present = token.step(node.now) + 3;
            node.now = token.middle_of(present);
            let code = token.code_of(present + offset);
            let expected = (-1..=last).contains(&offset);
            assert_eq!(is_good(&node, &alice, &code), expected, "{kind:?} {offset}");
            if expected {
                assert_eq!(node.check(&alice, &code).unwrap(), Verdict::Used);
                let before = token.code_of(present + offset - 1);
                assert!(!is_good(&node, &alice, &before), "an earlier step");
                node.now = token.middle_of(present + 1);
                assert!(!is_good(&node, &alice, &code), "one period later");
                node.now = token.middle_of(present + offset + 1);
                let next = token.code_of(present + offset + 1);
                assert!(is_good(&node, &alice, &next), "{kind:?} {offset}");
            }
        }
    }
}

/// A well-formed code with the wrong number of digits is a wrong code, and counts as a guess.
#[test]
fn a_code_of_another_length_is_wrong() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let token = Token::new(&mut node, &alice, (Algorithm::Sha1, 8, 30, 1));
    let code = token.code_of(token.step(node.now));
    for typed in [&code[2..], &code[1..], &format!("{code}0")] {
        let refused = node.check(&alice, typed).unwrap();
        let expected = Verdict::Wrong {
            begins_wait_s: None,
        };
        assert_eq!(refused, expected, "{}", typed.len());
    }
    assert!(is_good(&node, &alice, &code));
}

/// SECURITY.md 32, 39
#[test]
fn a_restore_raises_each_floor_by_its_own_period() {
    for kind in KINDS {
        let last = kind.3;
        let mut node = Node::new();
        let alice = node.user("alice");
        let token = Token::new(&mut node, &alice, kind);
        node.now = token.middle_of(token.step(node.now) + 3);
        let file = node.back_up("backup");
        let present = token.step(node.now);
        assert!(is_good(&node, &alice, &token.code_of(present + last)));
        node.restore(&file, FORCE).unwrap();
        for offset in -1..=last {
            let code = token.code_of(present + offset);
            assert!(!is_good(&node, &alice, &code), "{kind:?} {offset}");
        }
        // The used code has moved the drift to `last`, and the floor with it.
        let floor = present + 2 * last;
        node.now = token.middle_of(floor + 1 - last);
        for (step, expected) in [(floor, false), (floor + 1, true)] {
            let code = token.code_of(step);
            assert_eq!(is_good(&node, &alice, &code), expected, "{kind:?}");
        }
    }
}

/// SECURITY.md 35, 39
#[test]
fn a_fix_of_the_clock_judges_each_authenticator_by_its_own_period() {
    for kind in KINDS {
        let last = kind.3;
        let mut node = Node::new();
        let alice = node.user("alice");
        let token = Token::new(&mut node, &alice, kind);
        let right = node.now;
        node.pass_seconds(3 * 86_400);
        let then = token.step(node.now);
        node.now = token.middle_of(then);
        assert!(is_good(&node, &alice, &token.code_of(then)));
        node.now = token.middle_of(token.step(right) + 1);
        let present = token.step(node.now);
        let fixed = node.service().fix_clock(&node.context()).unwrap();
        assert_eq!(fixed.totps, 1, "{kind:?}");
        let end = Timestamp::from_seconds((then + 1) * token.period_s());
        assert_eq!(fixed.void_until, Some(end), "{kind:?}");
        let code = token.code_of(present + last);
        assert_eq!(node.check(&alice, &code).unwrap(), Verdict::Used);
        node.now = token.middle_of(present + last + 1);
        let code = token.code_of(present + last + 1);
        assert!(is_good(&node, &alice, &code), "{kind:?}");
        for (step, expected) in [(then - 1, false), (then, false), (then + 1, true)] {
            node.now = token.middle_of(step);
            let code = token.code_of(step);
            assert_eq!(is_good(&node, &alice, &code), expected, "{kind:?}");
        }
    }
}
