//! Case folding: a key that is equal for texts that differ only in case and normalization.

use unicode_normalization::UnicodeNormalization;

/// Folds a text, so that texts that differ only in case and normalization become equal: the NFC of the full case folding
/// (C and F of Unicode's `CaseFolding.txt`) of the NFC of the text, without a locale. `ß`, `SS` and `ss` become equal, and so
/// do `é` and `e` with a combining accent.
pub fn fold(text: &str) -> String {
    let composed: String = text.nfc().collect();
    caseless::default_case_fold_str(&composed).nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_in_every_script_and_without_a_locale() {
        for (one, other) in [
            ("Alice", "aLICE"),
            ("ÄRGER", "ärger"),
            ("Straße", "STRASSE"),
            ("ẞ", "ss"),
            ("ΟΔΟΣ", "οδος"),
            ("ИВАН", "иван"),
            ("ﬁ", "FI"),
            ("Ꭰ", "ꭰ"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        for (one, other) in [("a", "á"), ("I", "ı"), ("i", "ı"), ("ﬁ", "f")] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
    }

    #[test]
    fn composed_and_decomposed_are_one() {
        for (one, other) in [
            ("é", "e\u{301}"),
            ("É", "e\u{301}"),
            ("\u{212b}", "å"),
            ("\u{1e9b}\u{323}", "\u{1e69}"),
            ("한", "\u{1112}\u{1161}\u{11ab}"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(
            fold("²"),
            fold("2"),
            "compatibility characters stay different"
        );
    }

    #[test]
    fn folding_twice_is_folding_once() {
        let all = ('\u{1}'..=char::MAX).map(String::from);
        for text in all.filter(|it| fold(it) != *it) {
            assert_eq!(fold(&fold(&text)), fold(&text), "{}", text.escape_unicode());
        }
    }
}
