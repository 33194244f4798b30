//! Searches files for secrets as an attacker would who has the files and the master key. Knows the layout of a sealed
//! secret: key id (8 bytes), nonce (12), ciphertext (20), tag (16), padding.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use ring::aead::quic::{CHACHA20, HeaderProtectionKey};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rusqlite::{Connection, OpenFlags};

const KEY_ID: usize = 8;
const NONCE: usize = 12;
const SECRET: usize = 20;
const TAG: usize = 16;
const PIECE: usize = 16;

/// A secret to search for.
pub struct Sought {
    pub user: String,
    pub totp: String,
    /// The secret that the start of the enrolment returned.
    pub secret: Vec<u8>,
    pub sealed: Vec<u8>,
}

/// How much was searched, and what was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub files: usize,
    pub bytes: usize,
    /// Places with 16 bytes of a nonce, ciphertext and tag, or with 16 bytes of a secret itself.
    pub pieces: usize,
    /// Places where a nonce and the bytes after it decrypt to a secret.
    pub opened: usize,
    /// Of these, the places where the tag also verifies for this user and authenticator.
    pub vouched_for: usize,
}

impl Found {
    pub const fn is_nothing(&self) -> bool {
        self.pieces == 0 && self.opened == 0 && self.vouched_for == 0
    }
}

/// The sealed secrets in a database by the ids of their authenticators, from any table.
pub fn sealed_secrets(database: &Path) -> HashMap<String, Vec<u8>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(database, flags).unwrap();
    let slots = "SELECT id, secret FROM totp JOIN slot ON number = slot";
    let prepared = connection.prepare(slots);
    let prepared = prepared.or_else(|_| connection.prepare("SELECT id, secret FROM totp"));
    let mut statement = prepared.unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// Searches every file in a directory.
pub fn search(dir: &Path, key: &[u8], sought: &[Sought]) -> Found {
    let pieces = pieces(sought);
    let may_begin = Beginnings::of(pieces.iter().map(<[u8; PIECE]>::as_slice));
    let may_begin_a_secret = Beginnings::of(sought.iter().map(|it| it.secret.as_slice()));
    let mut by_beginning: HashMap<[u8; 5], Vec<&Sought>> = HashMap::new();
    for it in sought {
        let beginning = it.secret[..5].try_into().unwrap();
        by_beginning.entry(beginning).or_default().push(it);
    }
    let keystream = HeaderProtectionKey::new(&CHACHA20, key).unwrap();
    let mut found = Found::default();
    for file in files(dir) {
        let bytes = fs::read(&file).unwrap();
        found.files += 1;
        found.bytes += bytes.len();
        for window in bytes.windows(PIECE) {
            found.pieces += usize::from(may_begin.has(window) && pieces.contains(window));
        }
        // RFC 8439 §2.8: the text is encrypted starting with block 1. A mask is the first 5 bytes of a block.
        let mut sample = [0; 16];
        sample[0] = 1;
        for window in bytes.windows(NONCE + SECRET) {
            sample[4..].copy_from_slice(&window[..NONCE]);
            let mut text = keystream.new_mask(&sample).unwrap();
            for (to, from) in text.iter_mut().zip(&window[NONCE..]) {
                *to ^= from;
            }
            if !may_begin_a_secret.has(&text) {
                continue;
            }
            for it in by_beginning.get(&text).into_iter().flatten() {
                if decrypt(key, &window[..NONCE], &window[NONCE..]) == it.secret {
                    found.opened += 1;
                    found.vouched_for += usize::from(opens(key, &bytes, window, it));
                }
            }
        }
    }
    found
}

/// The first three bytes of each searched sequence. They rule out nearly every place in a file quickly.
struct Beginnings(Vec<bool>);

impl Beginnings {
    fn of<'a>(these: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all = vec![false; 1 << 24];
        these.for_each(|it| all[Self::of_one(it)] = true);
        Self(all)
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.0[Self::of_one(bytes)]
    }

    fn of_one(bytes: &[u8]) -> usize {
        usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
    }
}

/// Every sequence of 16 bytes that is unique to a secret, in its sealed form and in the secret itself.
fn pieces(sought: &[Sought]) -> HashSet<[u8; PIECE]> {
    let whole = sought.iter().flat_map(|it| {
        let sealed = &it.sealed[KEY_ID..KEY_ID + NONCE + SECRET + TAG];
        sealed.windows(PIECE).chain(it.secret.windows(PIECE))
    });
    whole.map(|it| it.try_into().unwrap()).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|it| it.unwrap());
    let files = entries.filter(|it| it.file_type().unwrap().is_file());
    files.map(|it| it.path()).collect()
}

fn sealing_key(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap())
}

/// Decrypts without verifying the tag: the ciphertext of zeros is the keystream.
fn decrypt(key: &[u8], nonce: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let mut text = vec![0; ciphertext.len()];
    let sealed = sealing_key(key).seal_in_place_separate_tag(nonce, Aad::empty(), &mut text);
    let _tag = sealed.unwrap();
    for (to, from) in text.iter_mut().zip(ciphertext) {
        *to ^= from;
    }
    text
}

/// Whether the sealed secret at `window` in `bytes` opens for this user and authenticator.
fn opens(key: &[u8], bytes: &[u8], window: &[u8], sought: &Sought) -> bool {
    let begins = window.as_ptr() as usize - bytes.as_ptr() as usize;
    let Some(sealed) = bytes.get(begins..begins + NONCE + SECRET + TAG) else {
        return false;
    };
    let mut bound = b"totpd secret 1".to_vec();
    for id in [&sought.user, &sought.totp] {
        bound.extend_from_slice(&(id.len() as u64).to_be_bytes());
        bound.extend_from_slice(id.as_bytes());
    }
    let nonce = Nonce::try_assume_unique_for_key(&sealed[..NONCE]).unwrap();
    let mut text = sealed[NONCE..].to_vec();
    let opened = sealing_key(key).open_in_place(nonce, Aad::from(bound), &mut text);
    opened.is_ok_and(|it| it == sought.secret)
}
