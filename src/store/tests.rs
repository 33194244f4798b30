//! SECURITY.md 23: every statement for a caller of one organization uses an index that begins with the organization.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    reason = "the numbers are small, and the test prints what it measured"
)]

use super::*;
use crate::model::{Filter, Search, SortBy, TextFilter, TextMethod, UserId, UserState};

/// Creates a database with these numbers of users in two organizations.
fn store(users: [usize; 2]) -> (tempfile::TempDir, Store, [OrgId; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.db");
    let now = Timestamp::from_seconds(1_795_453_579);
    file::create(&path, |connection| {
        let tx = WriteTx::new(connection, now)?;
        let instance = Instance {
            id: "1".to_owned(),
            key_id: [0; 8],
            last_id: 1,
        };
        let settings = Settings {
            issuer: Name::from_trusted("Test".to_owned()),
            window: crate::model::Window::OneEitherSide,
            checkpoints: crate::model::Checkpointer::Own,
            self_removal: crate::model::SelfRemoval::Allow,
        };
        tx.insert_instance(&instance, &settings)?;
        for (number, count) in users.into_iter().enumerate() {
            let org = OrgId::from_trusted(format!("org{number}"));
            let (id, name) = (org.clone(), Name::from_trusted("n".to_owned()));
            tx.insert_organization(&Organization { id, name })?;
            for n in 0..count {
                let row = UserRow {
                    id: UserId::from_trusted(format!("user{number}-{n:05}")),
                    org: org.clone(),
                    state: UserState::Active,
                    created: now,
                    changed: now,
                };
                let content = UserContent {
                    schema_id: None,
                    data: Some(format!(
                        "{{\"a\":\"{}\"}}",
                        "x".repeat(60_000 * usize::from(n == 0))
                    )),
                };
                assert!(tx.insert_user(&row, &content)?);
                let username = UsernameRow {
                    id: tx.new_id()?,
                    username: Name::from_trusted(format!("name{number}-{n:05}")),
                    is_organization_specific: false,
                };
                tx.insert_username(&row, &username)?;
            }
        }
        Ok(())
    })
    .unwrap();
    let options = StoreOptions {
        commit_batch: 1,
        read_timeout: Duration::from_mins(1),
        expects_litestream: false,
    };
    let store = Store::open(&path, &options).unwrap();
    (
        dir,
        store,
        [0, 1].map(|it| OrgId::from_trusted(format!("org{it}"))),
    )
}

/// The steps of a statement's query plan.
fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let params = statement.parameter_count();
    let nothing = vec![rusqlite::types::Value::Null; params];
    let rows = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get(3));
    rows.unwrap().map(Result::unwrap).collect()
}

/// Whether a step reads rows of a table.
fn reads(step: &str) -> bool {
    step.starts_with("SCAN") || step.starts_with("SEARCH")
}

#[test]
fn statements_for_one_organization_search_by_it() {
    let (_dir, store, _) = store([1, 1]);
    let statements = [
        users::USER_IN_ORG,
        users::USER_CONTENT,
        users::USERNAMES,
        users::USERNAME_IS_TAKEN,
        users::DELETE_USER,
        users::CHANGE_STATE,
        totps::TOTPS,
        totps::CLAIM_STEP,
        totps::CONFIRM_TOTP,
        totps::CLAIM_TWO_STEPS,
        totps::RENAME_TOTP,
        totps::DELETE_TOTP_IN_ORG,
        slots::ZERO_SLOTS_OF_USER,
        recovery::RECOVERY_SET,
        recovery::USE_RECOVERY_CODE,
        recovery::ZERO_RECOVERY_SLOT,
        recovery::DELETE_RECOVERY_SET,
        recovery::NOTE_RECOVERY,
        recovery::CONFIRMED_TOTP,
        event_list::EVENTS_OF_ORG[0],
        event_list::EVENTS_OF_ORG[1],
        event_list::NEXT_OF_ORG,
    ];
    let read = store.read(|tx| {
        for sql in statements {
            let plan = plan(tx.connection, sql);
            let reading: Vec<&String> = plan.iter().filter(|it| reads(it)).collect();
            // The slot is found by its number in the authenticator's row, and the kinds of events are the caller's.
            let is_other = |it: &&&String| {
                it.contains("SEARCH slot USING INTEGER PRIMARY KEY") || it.contains("json_each")
            };
            let reading: Vec<&String> =
                reading.iter().filter(|it| !is_other(it)).copied().collect();
            let (first, rest) = reading.split_first().unwrap();
            assert!(first.contains("org_id=?"), "{sql}\n{plan:#?}");
            // Rows that are deleted with a user are searched only after the user was found.
            let goes_along = |it: &&String| sql == users::DELETE_USER && it.contains("user_id=?");
            assert!(rest.iter().all(goes_along), "{sql}\n{plan:#?}");
        }
        Ok(())
    });
    read.unwrap();
}

fn like(text: &str, method: TextMethod) -> TextFilter {
    let text = Name::from_trusted(text.to_owned());
    TextFilter { text, method }
}

/// Every filter in every method, alone and under each kind of other.
fn searches() -> Vec<Search> {
    use TextMethod as M;
    let methods = [
        M::Equals,
        M::EqualsIgnoreCase,
        M::StartsWith,
        M::StartsWithIgnoreCase,
        M::Contains,
    ];
    let mut filters: Vec<Filter> = vec![Filter::State(UserState::Locked), Filter::Nothing];
    for method in methods {
        filters.push(Filter::Id(like("user1", method)));
        filters.push(Filter::Organization(like("org0", method)));
        for specific_only in [false, true] {
            let like = like("name1", method);
            filters.push(Filter::Username {
                like,
                specific_only,
            });
        }
    }
    let sorts = [
        SortBy::Creation,
        SortBy::Id,
        SortBy::Change,
        SortBy::State,
        SortBy::SchemaId,
    ];
    let mut searches = Vec::new();
    for sort in sorts {
        for filter in &filters {
            let active = Filter::State(UserState::Active);
            for filters in [
                vec![],
                vec![filter.clone()],
                vec![Filter::Not(Box::new(filter.clone()))],
                vec![Filter::Or(vec![filter.clone(), active.clone()])],
                vec![filter.clone(), active.clone()],
                vec![Filter::Not(Box::new(filter.clone())), active.clone()],
            ] {
                searches.push(Search {
                    filters,
                    sort,
                    descending: false,
                    offset: 0,
                    limit: 100,
                });
            }
        }
    }
    searches
}

#[test]
fn searches_within_one_organization_search_by_it() {
    let (_dir, store, [org, _]) = store([1, 1]);
    let read = store.read(|tx| {
        let mut wrong = std::collections::BTreeSet::new();
        for search in searches() {
            for sql in tx.statements_of(&search, Some(&org))? {
                for step in plan(tx.connection, &sql) {
                    if reads(&step) && !step.contains("org_id=?") {
                        wrong.insert(format!("{step}\n  {sql}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
        Ok(())
    });
    read.unwrap();
}

/// A search that few users match reads these, and not all users in the sort order.
#[test]
fn a_narrow_search_goes_by_what_it_names() {
    let (_dir, store, [org, _]) = store([1, 1]);
    let read = store.read(|tx| {
        for search in searches() {
            let [Filter::Username { .. }] = search.filters.as_slice() else {
                continue;
            };
            let ordered = tx.statements_of(&search, Some(&org))?.swap_remove(1);
            let plan = plan(tx.connection, &ordered);
            let is_by_id = |it: &String| it.contains("INDEX user_in_org (org_id=? AND id=?)");
            assert!(plan.iter().any(is_by_id), "{ordered}\n{plan:#?}");
        }
        Ok(())
    });
    read.unwrap();
}

/// The users of another organization do not change the time of an answer. Measures time, so it is run alone.
#[test]
#[ignore = "it measures time: cargo test --release --lib what_is_out_of_sight -- --ignored"]
fn what_is_out_of_sight_takes_no_time() {
    let (_dir, store, [org, _]) = store([0, 3_000]);
    let ids = ["user9-00000", "user1-00000"].map(|it| UserId::from_trusted(it.to_owned()));
    let totp = crate::model::TotpId::from_trusted("1".to_owned());
    let now = Timestamp::from_seconds(1_795_453_600);
    let prefix = ["name9", "name1"];
    compare("a look-up of a user", |which| {
        let started = Instant::now();
        let found = store.read(|tx| tx.user(Some(&org), &ids[which]));
        let took = started.elapsed();
        assert!(found.unwrap().is_none());
        took
    });
    for method in [
        TextMethod::StartsWith,
        TextMethod::Equals,
        TextMethod::Contains,
    ] {
        compare("a search by username", |which| {
            let like = like(prefix[which], method);
            let search = Search {
                filters: vec![Filter::Username {
                    like,
                    specific_only: false,
                }],
                sort: SortBy::Creation,
                descending: false,
                offset: 0,
                limit: 100,
            };
            let started = Instant::now();
            let found = store.read(|tx| tx.search_users(&search, Some(&org)));
            let took = started.elapsed();
            assert_eq!(found.unwrap().1, 0);
            took
        });
    }
    compare("a removal", |which| {
        let (org, user, totp) = (org.clone(), ids[which].clone(), totp.clone());
        let removed = store.write(now, move |tx| {
            let started = Instant::now();
            let removed = tx.delete_totp(Some(&org), &user, &totp)?;
            assert!(removed.is_none());
            Ok(started.elapsed())
        });
        removed.unwrap()
    });
}

/// Medians over 2,000 pairs, interleaved: within 3 µs or 3 %.
fn compare(what: &str, mut act: impl FnMut(usize) -> Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for pair in 0..2_200 {
        // The order alternates, because the first call warms the caches for the second.
        for which in [pair % 2, 1 - pair % 2] {
            let took = act(which);
            if pair >= 200 {
                times[which].push(took);
            }
        }
    }
    let [unknown, elsewhere] = times.map(|mut it| {
        it.sort_unstable();
        it[it.len() / 2]
    });
    let difference = unknown.abs_diff(elsewhere);
    let allowed = Duration::from_micros(3).max(unknown * 3 / 100);
    eprintln!("{what}: unknown {unknown:?}, elsewhere {elsewhere:?}, apart {difference:?}");
    assert!(
        difference <= allowed,
        "{what}: {unknown:?} and {elsewhere:?}"
    );
}
