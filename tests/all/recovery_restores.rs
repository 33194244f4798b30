//! Restores and recovery codes: no code that was used, replaced or removed becomes valid again. SECURITY.md 32, 38.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use totpd::error::{Error, Result, WrongState};
use totpd::model::UserId;
use totpd::service::{RecoveryVerdict, RestoreOptions};

use crate::node::{FORCE, Node};
use crate::restore::Random;

impl Node {
    pub fn generate(&self, user: &UserId) -> Vec<String> {
        let generated = self
            .service()
            .generate_recovery_codes(&self.context(), user.clone());
        let codes = generated.unwrap().codes;
        codes.iter().map(|it| it.text().to_string()).collect()
    }

    pub fn recover(&self, user: &UserId, code: &str) -> Result<RecoveryVerdict> {
        let code = code.parse().unwrap();
        self.service()
            .check_recovery_code(&self.context(), user.clone(), code)
    }

    pub fn accepts(&self, user: &UserId, code: &str) -> bool {
        matches!(self.recover(user, code), Ok(RecoveryVerdict::Accepted(_)))
    }

    pub fn refuses(&self, user: &UserId, code: &str) -> bool {
        matches!(
            self.recover(user, code),
            Ok(RecoveryVerdict::Refused { .. })
        )
    }

    pub fn has_no_codes(&self, user: &UserId) -> bool {
        let none = self.recover(user, "0000-0000-0000-0000");
        matches!(none, Err(Error::WrongState(WrongState::NoRecoveryCodes)))
    }

    /// How many codes the user has left.
    pub fn count(&self, user: &UserId) -> usize {
        let counted = self.service().recovery_codes(&self.context(), user);
        counted.unwrap().remaining as usize
    }

    pub fn remove_codes(&self, user: &UserId) {
        self.service()
            .remove_recovery_codes(&self.context(), user.clone())
            .unwrap();
    }
}

pub fn accept_loss() -> RestoreOptions {
    RestoreOptions {
        replace: true,
        accept_loss: true,
    }
}

/// SECURITY.md 32, 38
#[test]
fn a_restore_keeps_used_recovery_codes_used() {
    let mut node = Node::new();
    let alice = node.user("alice");
    node.enrol(&alice);
    let codes = node.generate(&alice);
    assert!(node.accepts(&alice, &codes[0]));
    let backup = node.back_up("backup");
    node.pass_seconds(1);
    assert!(node.accepts(&alice, &codes[1]));
    for _ in 0..2 {
        let restored = node.restore(&backup, FORCE).unwrap();
        assert!(!restored.has_loss);
        assert_eq!(restored.applied_again.recovery_codes, 0);
        assert!(node.refuses(&alice, &codes[0]) && node.refuses(&alice, &codes[1]));
        assert!(node.is_content());
    }
    assert!(node.accepts(&alice, &codes[2]));
    assert_eq!(node.count(&alice), 7);
}

/// SECURITY.md 32, 38: codes that were replaced, removed, or gone with the last authenticator since the backup, also
/// through another backup.
#[test]
fn a_restore_brings_no_recovery_codes_back() {
    let mut node = Node::new();
    let users = ["ann", "bob", "cid", "dan"].map(|it| node.user(it));
    let phones = users.clone().map(|it| node.enrol(&it));
    let old = users.clone().map(|it| node.generate(&it));
    let first = node.back_up("first");
    node.pass_seconds(1);
    let [ann, bob, cid, dan] = &users;
    let new = node.generate(ann);
    node.remove_codes(bob);
    node.remove(cid, &phones[2]);
    // The codes now belong to an authenticator that the backup does not have.
    node.enrol(dan);
    node.remove(dan, &phones[3]);
    let second = node.back_up("second");
    node.pass_seconds(1);
    assert!(node.accepts(ann, &new[0]) && node.accepts(dan, &old[3][0]));

    let restored = node.restore(&first, FORCE).unwrap();
    assert_eq!(restored.applied_again.recovery_codes, 4, "{restored:?}");
    for user in &users {
        assert!(node.has_no_codes(user), "{user}");
    }
    let events =
        "SELECT count(*) FROM event WHERE kind = 'recovery.removed' AND actor = 'command-line'";
    let count: i64 = Connection::open(node.file("totpd.db"))
        .unwrap()
        .query_row(events, (), |row| row.get(0))
        .unwrap();
    assert_eq!(count, 4);
    assert!(node.is_content());
    // No record says any more which of these were used.
    node.restore(&second, FORCE).unwrap();
    for user in &users {
        assert!(node.has_no_codes(user), "{user}");
    }
    assert!(node.is_content());
}

/// Generations, uses, removals, backups and restores in random order. SECURITY.md 32, 38
#[test]
fn no_chain_of_restores_makes_a_recovery_code_good_again() {
    // These seeds were chosen because the second of them finds a set that becomes valid again.
    for seed in 8..14 {
        let (mut random, mut node) = (Random(seed), Node::new());
        let alice = node.user("alice");
        node.enrol(&alice);
        let (mut current, mut ended) = (Vec::new(), Vec::new());
        let (mut backups, mut told) = (vec![node.back_up("0")], vec![format!("seed {seed}")]);
        for step in 1..40 {
            node.pass_seconds([0, 1, 7][random.below(3)]);
            let action = random.below(16);
            told.push(format!("{step}: {action}"));
            match action {
                0 | 1 => {
                    ended.append(&mut current);
                    current = node.generate(&alice);
                }
                2..7 if !current.is_empty() => {
                    let code = current.swap_remove(random.below(current.len()));
                    // A restore may have voided the code. Otherwise it works once.
                    if node.accepts(&alice, &code) {
                        assert!(!node.accepts(&alice, &code), "{told:?}");
                    }
                    let context = node.context();
                    node.service().unlock_user(&context, alice.clone()).unwrap();
                    ended.push(code);
                }
                7 if node.count(&alice) > 0 => {
                    node.remove_codes(&alice);
                    ended.append(&mut current);
                }
                8 => {
                    for totp in node.totps(&alice) {
                        let (context, id) = (node.context(), totp.parse().unwrap());
                        let removed = node.service().remove_totp(&context, alice.clone(), id);
                        removed.unwrap();
                    }
                    ended.append(&mut current);
                    node.enrol(&alice);
                }
                9..12 => backups.push(node.back_up(&step.to_string())),
                12.. => {
                    // Usually one of the newest backups, which has the same set.
                    let backup = &backups[backups.len() - 1 - random.below(backups.len().min(5))];
                    let restored = node.restore(backup, FORCE).unwrap();
                    assert!(!restored.has_loss, "{told:?}");
                    assert!(node.is_content(), "{told:?}");
                    if node.totps(&alice).is_empty() {
                        node.enrol(&alice);
                    }
                }
                _ => continue,
            }
            let left = node.count(&alice);
            assert!(left <= current.len(), "{left} after {told:?}");
            // Each of these codes is refused. The fifth wrong code would begin a wait.
            for codes in ended.chunks(4).filter(|_| left > 0 && action >= 12) {
                for code in codes {
                    assert!(node.refuses(&alice, code), "{code} after {told:?}");
                }
                let context = node.context();
                node.service().unlock_user(&context, alice.clone()).unwrap();
            }
        }
    }
}

/// SECURITY.md 38
#[test]
fn where_a_restore_loses_records_no_recovery_code_of_the_backup_is_good() {
    let mut node = Node::new();
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    for user in [&alice, &bob] {
        node.enrol(user);
        node.generate(user);
    }
    let backup = node.back_up("backup");
    // A restore into an empty directory, and one over a damaged database without complete records.
    let mut other = node.elsewhere();
    let restored = other.restore(&backup, accept_loss()).unwrap();
    assert!(restored.has_loss);
    let mut damaged = node.elsewhere();
    let database = damaged.file("totpd.db");
    fs::write(&database, "no database").unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
    let restored_too = damaged.restore(&backup, accept_loss()).unwrap();
    for (node, restored) in [(&other, restored), (&damaged, restored_too)] {
        assert_eq!(restored.applied_again.recovery_codes, 2);
        assert!(node.has_no_codes(&alice) && node.has_no_codes(&bob));
        assert!(node.is_content());
    }
    let codes = other.generate(&alice);
    assert!(other.accepts(&alice, &codes[0]));
}

/// The doctor reports what another program changed in the file, and a restore corrects it.
#[test]
fn recovery_codes_without_an_authenticator_are_found_by_the_doctor_and_ended_by_a_restore() {
    let mut node = Node::new();
    let alice = node.user("alice");
    node.enrol(&alice);
    node.generate(&alice);
    let change = |sql: &str| {
        let database = Connection::open(node.file("totpd.db")).unwrap();
        database.execute_batch(sql).unwrap();
    };
    for sql in [
        "UPDATE totp SET has_recovery = 0",
        "UPDATE totp SET has_recovery = 1; UPDATE totp SET state = 'pending'",
    ] {
        change(sql);
        let told = node.complaint("secrets");
        assert!(told.contains("do not fit together"), "{told}");
    }
    let backup = node.back_up("backup");
    node.restore(&backup, FORCE).unwrap();
    assert!(node.is_content() && node.has_no_codes(&alice));
}
