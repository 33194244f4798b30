//! What a batch keeps when a change or a commit fails, and the order of the queue.

use std::sync::Barrier;

use super::*;

fn writer(schema: &str) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    let connection = Connection::open(dir.path().join("t.db")).unwrap();
    connection.execute_batch(schema).unwrap();
    (
        dir,
        Writer::new(connection, 128, Arc::new(WalLength::new())),
    )
}

fn count(writer: &Writer) -> i64 {
    writer
        .write(|connection| {
            Ok(connection
                .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
                .unwrap())
        })
        .unwrap()
}

#[test]
fn a_change_that_fails_or_panics_leaves_the_others_whole() {
    let (_dir, writer) = writer("CREATE TABLE t (n INTEGER)");
    let writer = &writer;
    std::thread::scope(|scope| {
        for n in 0..300 {
            scope.spawn(move || {
                let result = writer.write(move |connection| {
                    connection
                        .execute("INSERT INTO t VALUES (?1)", [n])
                        .unwrap();
                    match n % 3 {
                        0 => Ok(n),
                        1 => Err(Error::Forbidden),
                        _ => panic!("on purpose"),
                    }
                });
                match n % 3 {
                    0 => assert_eq!(result.unwrap(), n),
                    1 => assert!(matches!(result, Err(Error::Forbidden))),
                    _ => assert!(matches!(result, Err(Error::Bug(_)))),
                }
            });
        }
    });
    assert_eq!(count(writer), 100);
}

#[test]
fn changes_of_a_batch_are_kept_or_lost_together() {
    let (_dir, writer) = writer(
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE t (n INTEGER REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let insert = |n: Option<i64>, keep: bool| {
        writer.write(move |connection| {
            connection
                .execute("INSERT INTO t VALUES (?1)", [n])
                .unwrap();
            if keep { Ok(()) } else { Err(Error::Forbidden) }
        })
    };
    let result = writer.run_batch(|| {
        insert(None, true).unwrap();
        assert!(insert(None, false).is_err());
        insert(None, true).unwrap();
    });
    assert!(result.is_ok());
    assert_eq!(
        count(&writer),
        2,
        "the one that failed left the others whole"
    );
    let result = writer.run_batch(|| {
        insert(None, true).unwrap();
        insert(Some(7), true).unwrap();
    });
    assert!(matches!(result, Err(Error::Unavailable(_))));
    let result = writer.run_batch(|| {
        insert(None, true).unwrap();
        panic!("on purpose");
    });
    assert!(matches!(result, Err(Error::Bug(_))));
    assert!(writer.run_batch(|| {}).is_ok());
    assert_eq!(count(&writer), 2, "and the writer goes on");
}

#[test]
fn a_batch_is_of_one_database_and_may_be_nested() {
    let (_one, first) = writer("CREATE TABLE t (n INTEGER)");
    let (_other, second) = writer("CREATE TABLE t (n INTEGER)");
    let insert = |into: &Writer| {
        let change = |connection: &Connection| {
            connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
            Ok(())
        };
        into.write(change).unwrap();
    };
    let result = first.run_batch(|| {
        insert(&first);
        first.run_batch(|| insert(&first)).unwrap();
        insert(&second);
        second.run_batch(|| insert(&second)).unwrap();
        insert(&first);
    });
    assert!(result.is_ok());
    assert_eq!((count(&first), count(&second)), (3, 2));
}

/// Single changes and batches of threads at once, with exclusive work between them.
#[test]
fn single_changes_batches_and_exclusive_work_can_be_mixed() {
    let (_dir, writer) = writer("CREATE TABLE t (n INTEGER)");
    let insert = |n: i64| {
        let change = move |connection: &Connection| {
            connection
                .execute("INSERT INTO t VALUES (?1)", [n])
                .unwrap();
            Ok(())
        };
        writer.write(change).unwrap();
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || (0..100).for_each(insert));
            let writer = &writer;
            scope.spawn(move || {
                for n in 0..50 {
                    writer.run_batch(|| (0..3).for_each(insert)).unwrap();
                    if n % 10 == thread {
                        let is_free = writer.run_exclusive(|it| Ok(it.is_autocommit())).unwrap();
                        assert!(is_free, "no transaction is open");
                    }
                }
            });
        }
    });
    assert_eq!(count(&writer), 4 * 100 + 4 * 150);
}

#[test]
fn a_commit_that_fails_fails_its_whole_batch_and_the_writer_goes_on() {
    // A deferred constraint fails at COMMIT and not before.
    let (_dir, writer) = writer(
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE t (n INTEGER REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let writer = &writer;
    let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    std::thread::scope(|scope| {
        let (has_begun, may_go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        scope.spawn(move || {
            writer.run_exclusive(move |_| {
                has_begun.wait();
                may_go_on.wait();
                Ok(())
            })
        });
        begun.wait();
        let changes: Vec<_> = (0..10)
            .map(|n| {
                scope.spawn(move || {
                    writer.write(move |connection| {
                        let row = (n == 5).then_some(7);
                        connection
                            .execute("INSERT INTO t VALUES (?1)", [row])
                            .unwrap();
                        Ok(())
                    })
                })
            })
            .collect();
        while lock(&writer.queue).waiting.len() < 10 {
            std::thread::yield_now();
        }
        go_on.wait();
        for change in changes {
            let result = change.join().unwrap();
            assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
        }
    });
    assert_eq!(count(writer), 0);
    let result = writer.write(|connection| {
        connection
            .execute("INSERT INTO t VALUES (NULL)", ())
            .unwrap();
        Ok(())
    });
    assert!(result.is_ok());
    assert_eq!(count(writer), 1);
}

/// Two changes that fail after they have written, and one that writes no row.
fn refusals(writer: &Writer) -> [Result<()>; 3] {
    let refuse = || {
        writer.write(|connection| {
            connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
            Err(Error::Forbidden)
        })
    };
    let nothing = |connection: &Connection| {
        connection.execute("DELETE FROM t WHERE n = 7", ()).unwrap();
        Ok(())
    };
    [refuse(), writer.write(nothing), refuse()]
}

/// SECURITY.md 37
#[test]
fn refusals_alone_commit_nothing_and_beside_a_change_undo_nothing() {
    let (dir, writer) = writer("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)");
    let wal = || {
        std::fs::metadata(dir.path().join("t.db-wal"))
            .unwrap()
            .len()
    };
    let insert = || {
        writer.write(|connection| {
            connection.execute("INSERT INTO t VALUES (0)", ()).unwrap();
            Ok(())
        })
    };
    insert().unwrap();
    let before = wal();
    let _refused = refusals(&writer);
    assert_eq!(wal(), before, "one by one");
    writer.run_batch(|| drop(refusals(&writer))).unwrap();
    assert_eq!(wal(), before, "in one batch");
    let result = writer.run_batch(|| {
        let _refused = refusals(&writer);
        insert().unwrap();
        let _refused = refusals(&writer);
    });
    result.unwrap();
    assert!(wal() > before);
    assert_eq!(count(&writer), 2);
}
