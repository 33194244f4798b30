//! The list of a user's authenticators, and their names.

use totpd::model::Timestamp;

use crate::harness::{Phone, TestServer};
use crate::node::{FORCE, Node};

/// The list that the API returns.
fn list(server: &TestServer, user: &str) -> Vec<serde_json::Value> {
    let answer = server.ask("GET", &format!("/users/{user}/totp"), "");
    let json = answer.expect_status(200).json();
    json.get("result")
        .map_or_else(Vec::new, |it| it.as_array().unwrap().clone())
}

fn rename_path(user: &str, phone: &Phone) -> String {
    format!("/users/{user}/totp/{}/_rename", phone.id)
}

#[test]
fn a_list_shows_when_each_authenticator_was_made_and_last_used() {
    let server = TestServer::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    assert!(list(&server, &alice).is_empty());
    let made = server.now().to_string();
    let phone = server.enrol(&alice);
    let confirmed = list(&server, &alice)[0]["lastUsed"].clone();
    assert!(confirmed.is_string(), "the code that confirms is a use");
    server.pass_seconds(60);
    let pending = server.start_enrolment(&alice);
    server.enrol(&bob);
    server.pass_seconds(60);
    let used = server.now();
    server
        .check(&alice, &phone.code_at(used))
        .expect_status(200);
    server.pass_seconds(60);
    // Neither a wrong code nor a rename is a use.
    server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_error(400, 3, Some("EVENT-8isk2"));
    server
        .ask("POST", &rename_path(&alice, &phone), "\"Pixel 9\"")
        .expect_status(200);
    let listed = list(&server, &alice);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["totpId"], phone.id);
    assert_eq!(listed[0]["name"], "Pixel 9");
    assert_eq!(listed[0]["isVerified"], true);
    assert_eq!(listed[0]["created"], made);
    assert_eq!(listed[0]["lastUsed"], used.to_string());
    assert_eq!(listed[1]["totpId"], pending.id);
    let absent = ["isVerified", "lastUsed", "name"];
    assert!(absent.iter().all(|it| listed[1].get(it).is_none()));
    // An expired enrolment is not listed.
    server.pass_seconds(600);
    assert_eq!(list(&server, &alice).len(), 1);
    server
        .ask("POST", &rename_path(&alice, &pending), "\"Late\"")
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
}

/// SECURITY.md 33: the event keeps the name of its time.
#[test]
fn a_rename_changes_the_name_alone_and_leaves_an_event_with_the_new_one() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let (phone, tablet) = (server.enrol(&alice), server.enrol(&alice));
    let row = |of: &Phone| {
        let sql = format!(
            "SELECT last_step + created + last_used + slot FROM totp WHERE id = '{}'",
            of.id
        );
        server.count(&sql)
    };
    let before = (row(&phone), row(&tablet));
    server.pass_seconds(60);
    // Two authenticators may have the same name.
    for of in [&phone, &tablet, &phone] {
        let renamed = server
            .ask("POST", &rename_path(&alice, of), "\"Pixel 9\"")
            .expect_status(200);
        assert_eq!(renamed.text("/details/id"), of.id);
        assert_eq!(renamed.text("/details/changed"), server.now().to_string());
    }
    assert_eq!((row(&phone), row(&tablet)), before);
    let named = format!(
        "SELECT count(*) FROM event WHERE kind = 'totp.renamed' AND about_name = 'Pixel 9'
         AND about_id = '{}' AND user_id = '{alice}' AND org_id = '{}'",
        phone.id, server.org
    );
    assert_eq!(server.count(&named), 2);
    let request = r#"{"eventTypes":["totpd.totp.renamed"]}"#;
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let events = server
        .raw(
            "POST",
            "/admin/v1/events/_search",
            &bearer,
            request.as_bytes(),
        )
        .expect_status(200)
        .json();
    assert_eq!(events["events"][0]["payload"]["name"], "Pixel 9");
    assert_eq!(events["events"][0]["payload"]["totpId"], phone.id);
    // The authenticator is still accepted.
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
}

/// After a restore the time of the last use is that of the replaced database, not that of the backup.
#[test]
fn a_restore_keeps_when_an_authenticator_was_last_used() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(60);
    let backup = node.back_up("before");
    node.pass_seconds(60);
    let _accepted = node.check(&alice, &phone.code_at(node.now)).unwrap();
    let last_used = |node: &Node| -> Option<Timestamp> {
        let totps = node.service().totps(&node.context(), &alice).unwrap();
        totps[0].last_used
    };
    let used = last_used(&node);
    assert_eq!(used, Some(node.now));
    node.pass_seconds(60);
    node.restore(&backup, FORCE).unwrap();
    assert_eq!(last_used(&node), used);
}
