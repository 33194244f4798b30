//! Quoting of commands that a person pastes into a shell.

/// A line that a shell parses as `totpd` with exactly these words: `command` with its flags, then `words`.
///
/// Usernames and ids are free text. Without quotes the shell would run the text after a `;` as a command.
pub(super) fn command(command: &[&str], words: &[&str]) -> String {
    let mut line = vec!["totpd".to_owned()];
    line.extend(command.iter().map(|it| quoted(it)));
    // After `--`, words that begin with a hyphen are not flags.
    if words.iter().any(|it| it.starts_with('-')) {
        line.push("--".to_owned());
    }
    line.extend(words.iter().map(|it| quoted(it)));
    line.join(" ")
}

/// One word for a POSIX shell, in single quotes unless all of its characters are plain.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "_@%+=:,./-".contains(it);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        // Within single quotes only the quote itself is special.
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_itself_to_a_shell() {
        for word in [
            "alice@example.org",
            "",
            "o; echo HA",
            "it's",
            "$(id)",
            "`id`",
            "a b",
            "*",
            "~",
            "a\\b",
            "ü",
            "'; id; '",
            "#",
            "!x",
        ] {
            let line = format!("printf %s {}", quoted(word));
            let printed = std::process::Command::new("sh")
                .args(["-c", &line])
                .output();
            assert_eq!(String::from_utf8(printed.unwrap().stdout).unwrap(), word);
        }
        assert_eq!(quoted("alice@example.org"), "alice@example.org");
    }

    #[test]
    fn what_begins_with_a_hyphen_is_no_flag() {
        let line = command(&["--data-dir", "/my data", "user", "show"], &["-x"]);
        assert_eq!(line, "totpd --data-dir '/my data' user show -- -x");
    }
}
