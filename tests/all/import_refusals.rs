//! The rows and files that an import refuses, and its messages. SECURITY.md 24 and 27.

use std::fs;

use serde_json::Value;

use crate::binary::{Home, refused};
use crate::import::{S20, app, expect_next_is_good, fixture, id_of, import, step_now, write};

/// SECURITY.md 24 and 27: each refused row is reported with its reason, all others are imported, and no secret is
/// printed.
#[test]
fn each_row_that_is_not_taken_is_told_and_never_with_its_secret() {
    const ROWS: [(&str, &str); 16] = [
        (
            "otpauth://totp/good?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK",
            "",
        ),
        (
            "otpauth://totp/a?secret=0EZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1",
            "0, 1, 8 and 9",
        ),
        ("otpauth://totp/a?secret=KRUGKIDTMVRXEZL", "72 bits"),
        ("otpauth://totp/a?secret=KRUA", "16 bits"),
        (
            "otpauth://totp/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK&period=0",
            "period",
        ),
        (
            "otpauth://totp/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK&period=301",
            "period",
        ),
        (
            "otpauth://totp/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK&digits=5",
            "digits",
        ),
        (
            "otpauth://totp/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK&algorithm=MD5",
            "algorithm",
        ),
        (
            "otpauth://hotp/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK&counter=3",
            "HOTP",
        ),
        (
            "otpauth://steam/a?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK",
            "Steam",
        ),
        ("steam://KRUGKIDTMVRXEZLUEBUXGIDIMVZGK", "Steam"),
        ("KRUGKIDTMVRXEZLUEBUXGIDIMVZGK", "no user"),
        (
            "otpauth://totp/?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK",
            "no account",
        ),
        (
            "otpauth://totp/a%0Ab?secret=KRUGKIDTMVRXEZLUEBUXGIDIMVZGK",
            "cannot be seen",
        ),
        (
            "<html>KRUGKIDTMVRXEZLUEBUXGIDIMVZGK</html>",
            "no otpauth URI",
        ),
        (
            "otpauth://totp/last?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
            "",
        ),
    ];
    let (home, _) = Home::init();
    let file = write(&home, "list", ROWS.map(|(row, _)| row).join("\n") + "\n");
    let output = home.run(&["import", &file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for secret in ["KRUG", "krug", "JBSW", "EZDG"] {
        assert!(!said.contains(secret), "{said}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(secret));
    }
    let mut lines = said.lines();
    for (number, (row, reason)) in (1..).zip(ROWS) {
        if !reason.is_empty() {
            let line = lines.next().unwrap();
            let place = format!("totpd: line {number}: ");
            assert!(
                line.starts_with(&place) && line.contains(reason),
                "{row}: {line}"
            );
        }
    }
    assert_eq!(lines.next(), Some("totpd: import: 14 rows were not taken"));
    assert_eq!(lines.next(), None);
    assert_eq!(home.json(&["user", "list"]).as_array().unwrap().len(), 2);

    // Messages about a table do not quote its fields either.
    let table = "username,secret,digits\na,KRUGKIDTMVRXEZLUEBUXGIDIMVZGK,KRUG\nb,KRUG\nKRUGKIDTMVRXEZLUEBUXGIDIMVZGK,1,6\nc,\"KRUG";
    let file = write(&home, "table", table);
    let said = String::from_utf8(home.run(&["import", &file]).stderr).unwrap();
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(!said.contains("KRUG"), "{said}");
}

/// SECURITY.md 24
#[test]
fn a_short_secret_is_taken_only_if_that_is_said_and_told_by_doctor() {
    let (home, token) = Home::init();
    let eighty = app("alice", "GEZDGNBVGY3TQOJQ");
    let file = write(
        &home,
        "list",
        "otpauth://totp/alice?secret=GEZDGNBVGY3TQOJQ\n",
    );
    let (status, told) = import(&home, &[&file]);
    assert_eq!((status, &told["imported"]), (Some(1), &Value::from(0)));
    assert!(
        told["refusals"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("--allow-short-secrets")
    );
    let before = step_now(&eighty);
    let (status, _) = import(&home, &["--allow-short-secrets", &file]);
    let steps = (before, step_now(&eighty));
    assert_eq!(status, Some(0));
    let server = home.serve(&[]);
    expect_next_is_good(&server, &token, &id_of(&home, "alice"), &eighty, steps);
    let told = home.json(&["doctor"]).to_string();
    assert!(told.contains("1 of them have under 128 bits"), "{told}");
}

#[test]
fn a_file_that_is_none_of_these_is_refused_as_a_whole() {
    let (home, _) = Home::init();
    let utf_16: Vec<u8> = std::iter::once(0xfeff)
        .chain("username,secret\n".encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let deep = format!("{{\"realm\":\"a\",\"users\":{}", "[".repeat(100_000));
    let large = format!("totp_configurations:\n{}", "#\n".repeat(9 << 20));
    let own = "{\"totpd\":1,\"exported\":\"2026-11-26T19:09:55.798747Z\",\"users\":[\n{\"id\":\"1\",\"state\":\"active\"},\n";
    let realm = fs::read_to_string(fixture("keycloak-realm.json")).unwrap();
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it is empty"),
        (b" \n\n".to_vec(), "it is empty"),
        (utf_16, "UTF-16"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
            "no text in UTF-8",
        ),
        (
            b"<!DOCTYPE html>\n<html><body>Sign in</body></html>".to_vec(),
            "HTML page",
        ),
        (
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(),
            "no authenticator",
        ),
        (
            b"<svg xmlns=\"x\"><a></a></svg>".to_vec(),
            "no container of keys",
        ),
        (
            b"Dear reader,\nthis is a letter.\n".to_vec(),
            "not recognized",
        ),
        (b"{\"a\":1}".to_vec(), "no export of totpd, Keycloak"),
        (
            realm.as_bytes()[..realm.len() / 2].to_vec(),
            "not a complete JSON document",
        ),
        (deep.into_bytes(), "not as Keycloak"),
        (format!("[{realm},{realm}]").into_bytes(), "several realms"),
        (large.into_bytes(), "larger than 16 MiB"),
        (b"totp_configurations:\n- &a x\n- *a\n".to_vec(), "anchors"),
        (b"- otpkey: [1\n".to_vec(), "YAML"),
        (
            b"<!DOCTYPE KeyContainer [<!ENTITY a \"x\">]>\n<KeyContainer/>".to_vec(),
            "document type",
        ),
        (
            b"<KeyContainer><KeyPackage>&a;</KeyPackage></KeyContainer>".to_vec(),
            "entity",
        ),
        (b"<KeyContainer><KeyPackage><Key>".to_vec(), "no whole XML"),
        (vec![b'A'; 70 << 10], "not recognized"),
        (
            b"{\"totpd\":2,\"exported\":\"\",\"users\":[\n]}\n".to_vec(),
            "another version",
        ),
        (
            b"{\"totpd\": 1,\n \"users\": []}".to_vec(),
            "one user on each",
        ),
        ("username,secret\n".into(), "no authenticator"),
    ];
    for (content, told) in bad {
        let file = write(&home, "file", &content);
        println!("{told}");
        refused(&home.run(&["import", &file]), 1, told);
    }
    let directory = home.dir.path().to_str().unwrap().to_owned();
    home.refuses(&["import", &directory], 1, "it is a directory");
    home.refuses(&["import", "/nowhere/at/all"], 1, "cannot be read");
    home.refuses(
        &["import", "--format", "pam", &fixture("pyotp.txt")],
        1,
        "not of the format",
    );
    let unknown = ["import", "--org", "1", &fixture("pyotp.txt")];
    home.refuses(&unknown, 1, "organization not found");
    assert_eq!(home.json(&["user", "list"]).as_array().unwrap().len(), 0);

    // The rows before the cut are imported, and the cut is reported.
    let file = write(&home, "cut", own);
    let output = home.run(&["import", &file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("its end is missing"), "{said}");
    let quote = format!("username,secret\na,{S20}\nb,\"{}", "x".repeat(3 << 20));
    let output = home.run(&["import", &write(&home, "quote", quote)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is a quote left open?"), "{said}");
    id_of(&home, "a");
}
