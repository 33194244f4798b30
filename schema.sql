-- The whole database as a new file gets it. Version 2.
--
-- Times are microseconds since 1970, UTC. Ids are text: totpd's own are decimal, a user's may be anything.
-- What is an enum is text with a CHECK, so that the file explains itself to whoever opens it.

PRAGMA application_id = 0x746F7470; -- "totp"
PRAGMA user_version = 2;

-- One row: what the whole file is about.
CREATE TABLE instance (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT    NOT NULL,
    issuer       TEXT    NOT NULL CHECK (length(issuer) BETWEEN 1 AND 200),
    -- Steps either side of the present one that are good (RFC 6238 §5.2).
    window_steps INTEGER NOT NULL CHECK (window_steps IN (0, 1)),
    -- Which master key sealed the secrets; the key itself is never in here.
    key_id       BLOB    NOT NULL CHECK (length(key_id) = 8),
    -- The newest id made: ids only rise, so none is ever made twice, not even after a removal.
    last_id      INTEGER NOT NULL CHECK (last_id > 0),
    -- When readiness last proved that a write commits.
    probed_at    INTEGER NOT NULL,
    -- The newest event before the clock stood so much later that nothing is deleted by age until a person confirms
    -- it. NULL: there is no such doubt.
    clock_doubted_from INTEGER,
    -- When a person last confirmed that the clock is right. NULL: never.
    clock_confirmed_at INTEGER
) STRICT;

CREATE TABLE organization (
    id      TEXT    PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    name    TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE user (
    id        TEXT    PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    -- The id with case taken out of it, for searches that ignore case in every script; SQLite knows ASCII's alone.
    id_folded TEXT    NOT NULL,
    org_id    TEXT    NOT NULL REFERENCES organization (id),
    state     TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'inactive', 'locked')),
    schema_id TEXT    CHECK (length(schema_id) BETWEEN 1 AND 200),
    data      TEXT    CHECK (data IS NULL OR json_valid(data)),
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL
) STRICT;
-- What a call has to know of a user before it may do anything: the row itself, with all of `data`, is read only where
-- it is shown. The organization stands in front, so that a user of another one costs what an unknown user costs.
CREATE INDEX user_in_org ON user (org_id, id, state, created, changed);
-- A search within one organization comes in one of these orders, and counts what it finds. Every index ends in the
-- row's number, which is the order of making.
CREATE INDEX user_org_created ON user (org_id, created);
CREATE INDEX user_org_changed ON user (org_id, changed);
CREATE INDEX user_org_state ON user (org_id, state, created);
CREATE INDEX user_org_folded ON user (org_id, id_folded);
-- A search over all organizations, which only an administrator makes.
CREATE INDEX user_created ON user (created);
CREATE INDEX user_changed ON user (changed);
CREATE INDEX user_state ON user (state, created);
CREATE INDEX user_folded ON user (id_folded);

CREATE TABLE username (
    id           TEXT    PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    org_id       TEXT    NOT NULL REFERENCES organization (id),
    username     TEXT    NOT NULL CHECK (length(username) BETWEEN 1 AND 200),
    -- The key by which usernames are unique within an organization. Who clashed before that rule stays, so no index
    -- judges it: whoever inserts a row does.
    folded       TEXT    NOT NULL,
    org_specific INTEGER NOT NULL CHECK (org_specific IN (0, 1))
) STRICT;
CREATE INDEX username_of_user ON username (user_id, org_id);
-- Where all organizations are searched, each is looked into by these.
CREATE INDEX username_exact ON username (org_id, username, user_id);
CREATE INDEX username_folded ON username (org_id, folded, user_id);

-- Sealed secrets, one a row. SQLite copies cells between pages when a b-tree balances, and does not overwrite
-- the copies that stay behind. So these rows never move: they are only ever appended, never deleted, and all of
-- one length, so that every update writes over the same bytes. A slot that holds zeros is free and is used again.
CREATE TABLE slot (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    -- Sealed under the master key and bound to the user's and the authenticator's id; padded.
    secret BLOB    NOT NULL CHECK (length(secret) = 165)
) STRICT;

-- An authenticator. A pending one checks nothing; a removed one has no row. The rows of a user lie side by
-- side and the table is its own index: a removal changes one page of it, and a sync costs by the page. Among
-- many rows a read costs by the page too: what a removal has to know of the user is here beside it.
CREATE TABLE totp (
    id        TEXT    NOT NULL,
    user_id   TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    -- The user's; no user ever changes it.
    org_id    TEXT    NOT NULL REFERENCES organization (id),
    name      TEXT    CHECK (length(name) BETWEEN 1 AND 200),
    state     TEXT    NOT NULL CHECK (state IN ('pending', 'confirmed')),
    -- Where its secret lies. No two authenticators share a slot. An index that says so would cost one page more for
    -- each removal; a slot is taken only while it is zero, and the secret in it opens for one authenticator alone.
    slot      INTEGER NOT NULL REFERENCES slot (number),
    algorithm TEXT    NOT NULL CHECK (algorithm IN ('SHA1', 'SHA256', 'SHA512')),
    digits    INTEGER NOT NULL CHECK (digits BETWEEN 6 AND 9),
    -- The newest step that was used, or -1. It only rises, but for the confirmation of a clock that was ahead.
    last_step INTEGER NOT NULL CHECK (last_step >= -1),
    -- The steps in which codes were used while the clock was ahead, from the first to the last of them. None of these
    -- is good again. NULL: the clock was not ahead.
    void_from INTEGER,
    void_to   INTEGER CHECK (void_to >= void_from),
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL,
    -- With the organization in it, a removal within another one finds nothing where it would find an unknown user's.
    PRIMARY KEY (user_id, org_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX totp_pending ON totp (created) WHERE state = 'pending';

-- Failures in a row, counted per user: it outlives every authenticator.
CREATE TABLE failure (
    user_id   TEXT    NOT NULL PRIMARY KEY REFERENCES user (id) ON DELETE CASCADE,
    in_a_row  INTEGER NOT NULL CHECK (in_a_row > 0),
    judged_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Users who were locked, inactive or waiting in a database that a restore replaced, and whom the backup did not
-- have. When a later restore brings such a user back, the restriction applies again. No foreign key, for there is
-- no row to refer to.
CREATE TABLE restriction (
    user_id   TEXT    NOT NULL,
    -- When the user was created: its id may be used again.
    created   INTEGER NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('active', 'inactive', 'locked')),
    -- As in failure; 0 where there is none.
    in_a_row  INTEGER NOT NULL CHECK (in_a_row >= 0),
    judged_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, created)
) STRICT, WITHOUT ROWID;

-- What `self` tokens began for their user within the last hour, or longer ago where they began nothing since. There may
-- be thirty within an hour. No row of it goes when what was begun is removed.
CREATE TABLE self_change (
    user_id TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;

-- A bearer token: the SHA-256 of it, never the token.
CREATE TABLE token (
    id      TEXT    PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    role    TEXT    NOT NULL CHECK (role IN ('admin', 'manager', 'checker', 'self')),
    org_id  TEXT    REFERENCES organization (id),
    user_id TEXT    REFERENCES user (id) ON DELETE CASCADE,
    name    TEXT    CHECK (length(name) BETWEEN 1 AND 200),
    created INTEGER NOT NULL,
    -- NULL: never.
    expires INTEGER,
    CHECK (CASE role
        WHEN 'admin'   THEN org_id IS NULL     AND user_id IS NULL
        WHEN 'manager' THEN org_id IS NOT NULL AND user_id IS NULL
        WHEN 'checker' THEN user_id IS NULL
        WHEN 'self'    THEN org_id IS NULL     AND user_id IS NOT NULL
    END)
) STRICT;
CREATE INDEX token_of_user ON token (user_id);

-- What happened: who, what, when, for whom. Appended in the transaction of the change itself; no event is
-- older than the one before it. No foreign keys: an event outlives what it speaks of.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    -- The token's id, or 'command-line', or 'totpd' for what it does by itself.
    actor    TEXT    NOT NULL,
    peer     TEXT,
    org_id   TEXT,
    user_id  TEXT,
    -- The authenticator, token or organization that it is about.
    about_id TEXT,
    -- What it was dated by a clock that was ahead, before a person confirmed that the clock is right.
    original_at INTEGER
) STRICT;
