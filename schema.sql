-- The schema of a new database file. Version 3.
--
-- Times are microseconds since 1970, UTC. Ids are text: totpd's own are decimal, a user's may be anything.
-- Enums are text with a CHECK, so that a person can read the file.

PRAGMA application_id = 0x746F7470; -- "totp"
PRAGMA user_version = 3;

-- One row.
CREATE TABLE instance (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT    NOT NULL,
    issuer       TEXT    NOT NULL CHECK (length(issuer) BETWEEN 1 AND 200),
    -- Steps before and after the present one whose codes are accepted (RFC 6238 §5.2).
    window_steps INTEGER NOT NULL CHECK (window_steps IN (0, 1)),
    -- The id of the master key that sealed the secrets. The key is never in the database.
    key_id       BLOB    NOT NULL CHECK (length(key_id) = 8),
    -- While the key is rotated, the id of the next one: new secrets are sealed under it, and older ones one after
    -- another. NULL: every secret is sealed under the first.
    next_key_id  BLOB    CHECK (length(next_key_id) = 8),
    -- The newest id generated. Ids only rise, so none is generated twice, not even after a removal.
    last_id      INTEGER NOT NULL CHECK (last_id > 0),
    -- When the readiness probe last wrote.
    probed_at    INTEGER NOT NULL,
    -- The time of the last event before the clock moved so far ahead that nothing is deleted by age until a person
    -- confirms the clock. NULL: there is no such doubt.
    clock_doubted_from INTEGER,
    -- When a person last confirmed that the clock is right. NULL: never.
    clock_confirmed_at INTEGER,
    -- The sweep of old events: the event up to which it has come, and when it last began with the first one.
    swept_event  INTEGER NOT NULL DEFAULT 0,
    sweep_began  INTEGER NOT NULL DEFAULT 0,
    -- The time of the newest event that was deleted. All later events are on record.
    newest_deleted_event INTEGER NOT NULL DEFAULT 0,
    -- Who copies the WAL into the database and empties it. With 'litestream' totpd does neither.
    checkpoints  TEXT    NOT NULL DEFAULT 'own' CHECK (checkpoints IN ('own', 'litestream')),
    -- When a backup was last made. NULL: never since version 3 of the schema.
    backed_up_at INTEGER,
    -- What a `self` token needs to change the authenticators of its user: 'allow' nothing more, 'code' also a code.
    self_removal TEXT    NOT NULL DEFAULT 'allow' CHECK (self_removal IN ('allow', 'code'))
) STRICT;

CREATE TABLE organization (
    id      TEXT    PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    name    TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE user (
    id        TEXT    PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    -- The id after Unicode case folding, for searches that ignore case. SQLite itself folds only ASCII.
    id_folded TEXT    NOT NULL,
    org_id    TEXT    NOT NULL REFERENCES organization (id),
    state     TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'inactive', 'locked')),
    schema_id TEXT    CHECK (length(schema_id) BETWEEN 1 AND 200),
    data      TEXT    CHECK (data IS NULL OR json_valid(data)),
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL
) STRICT;
-- The columns that every call needs. The row itself, with all of `data`, is read only where it is shown. The organization
-- comes first, so that a user of another organization costs as much as an unknown user.
CREATE INDEX user_in_org ON user (org_id, id, state, created, changed);
-- For a search within one organization: its sort orders, and its counts. Every index ends with the row number, which is
-- the order of creation.
CREATE INDEX user_org_created ON user (org_id, created);
CREATE INDEX user_org_changed ON user (org_id, changed);
CREATE INDEX user_org_state ON user (org_id, state, created);
CREATE INDEX user_org_folded ON user (org_id, id_folded);
-- For a search over all organizations, which only an administrator can do.
CREATE INDEX user_created ON user (created);
CREATE INDEX user_changed ON user (changed);
CREATE INDEX user_state ON user (state, created);
CREATE INDEX user_folded ON user (id_folded);

CREATE TABLE username (
    id           TEXT    PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    org_id       TEXT    NOT NULL REFERENCES organization (id),
    username     TEXT    NOT NULL CHECK (length(username) BETWEEN 1 AND 200),
    -- The folded username, unique within an organization. Older usernames may clash, so no index enforces that: the
    -- statement that inserts a row does.
    folded       TEXT    NOT NULL,
    org_specific INTEGER NOT NULL CHECK (org_specific IN (0, 1))
) STRICT;
CREATE INDEX username_of_user ON username (user_id, org_id);
-- A search over all organizations uses these for each organization.
CREATE INDEX username_exact ON username (org_id, username, user_id);
CREATE INDEX username_folded ON username (org_id, folded, user_id);

-- Sealed secrets and keys, one in each row. When SQLite balances a b-tree it moves cells between pages, and does not overwrite the
-- copies that remain. So these rows never move: they are appended, never deleted, and all of one length, so that every
-- update writes over the same bytes. A slot of zeros is free and is used again.
CREATE TABLE slot (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    -- Sealed under the master key, bound to the ids of the user and of the authenticator or set of recovery codes, and
    -- padded.
    secret BLOB    NOT NULL CHECK (length(secret) = 165)
) STRICT;

-- Authenticators. A pending one cannot check codes; a removed one has no row. The table is its own index and the rows of a
-- user are adjacent, so a removal changes one page: the cost of a sync grows with the pages. The row has all that a
-- removal needs of the user, so that no other page is read.
CREATE TABLE totp (
    id        TEXT    NOT NULL,
    user_id   TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    -- The organization of the user. It never changes.
    org_id    TEXT    NOT NULL REFERENCES organization (id),
    name      TEXT    CHECK (length(name) BETWEEN 1 AND 200),
    state     TEXT    NOT NULL CHECK (state IN ('pending', 'confirmed')),
    -- The slot of its secret. No two authenticators share one. A UNIQUE index would cost each removal one more page, and
    -- is not needed: only a zeroed slot is used, and the secret in it opens for one authenticator only.
    slot      INTEGER NOT NULL REFERENCES slot (number),
    algorithm TEXT    NOT NULL CHECK (algorithm IN ('SHA1', 'SHA256', 'SHA512')),
    digits    INTEGER NOT NULL CHECK (digits BETWEEN 6 AND 9),
    -- The newest step that was used, or -1. Only the correction of a clock that was ahead lowers it.
    last_step INTEGER NOT NULL CHECK (last_step >= -1),
    -- The first and the last step used while the clock was ahead. No step between them is accepted again. NULL: the
    -- clock was not ahead.
    void_from INTEGER,
    void_to   INTEGER CHECK (void_to >= void_from),
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL,
    -- When a code was last accepted, the one that confirmed included. NULL: never since version 3 of the schema.
    last_used INTEGER,
    -- Whether the user has recovery codes, which go with the last confirmed authenticator. It is here so that a removal
    -- reads no other page to learn that there are none.
    has_recovery INTEGER NOT NULL DEFAULT 0 CHECK (has_recovery IN (0, 1)),
    -- The authenticator that confirming this pending one removes. No foreign key: it may be removed before.
    replaces  TEXT    CHECK (replaces IS NULL OR state = 'pending'),
    -- The length of a step in seconds.
    period_s  INTEGER NOT NULL DEFAULT 30 CHECK (period_s BETWEEN 10 AND 300),
    -- How many steps the authenticator's clock is ahead of ours.
    drift_steps INTEGER NOT NULL DEFAULT 0 CHECK (drift_steps BETWEEN -20 AND 20),
    -- Whether a code, or another token than a `self` token, allowed the start of the enrolment. If not, a `self` token may
    -- need a code to confirm it.
    proven    INTEGER NOT NULL DEFAULT 0 CHECK (proven IN (0, 1)),
    -- The organization is in the key, so that a removal in another organization reads as little as for an unknown user.
    PRIMARY KEY (user_id, org_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX totp_pending ON totp (created) WHERE state = 'pending';

-- The authenticators that are or were confirmed, as long as their user is there. Their events are kept so long.
CREATE TABLE confirmed_totp (
    user_id TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    totp_id TEXT NOT NULL,
    PRIMARY KEY (user_id, totp_id)
) STRICT, WITHOUT ROWID;

-- Recovery codes: at most one set for each user.
CREATE TABLE recovery_set (
    user_id TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    -- The organization of the user. It never changes.
    org_id  TEXT    NOT NULL REFERENCES organization (id),
    -- Every new set has an id of its own, so that a restore does not take one for another.
    id      TEXT    NOT NULL,
    -- The slot of the key of the digests.
    slot    INTEGER NOT NULL REFERENCES slot (number),
    -- The HMAC-SHA-256 of each of the ten codes. They stay when codes are used. Without the key they tell nothing.
    macs    BLOB    NOT NULL CHECK (length(macs) = 320),
    -- A bit for each code: 1 if it was used. The first code has the lowest bit.
    used    INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND 1023),
    created INTEGER NOT NULL,
    -- When one of the codes was last used, or `created`.
    changed INTEGER NOT NULL,
    PRIMARY KEY (user_id, org_id)
) STRICT, WITHOUT ROWID;

-- Failures in a row, counted per user. The count remains when authenticators are removed.
CREATE TABLE failure (
    user_id   TEXT    NOT NULL PRIMARY KEY REFERENCES user (id) ON DELETE CASCADE,
    in_a_row  INTEGER NOT NULL CHECK (in_a_row > 0),
    judged_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Users who were locked, inactive or waiting in a database that a restore replaced, and who were not in the backup. If a
-- later restore brings such a user back, the restriction applies again. No foreign key, because the user has no row.
CREATE TABLE restriction (
    user_id   TEXT    NOT NULL,
    -- When the user was created. It identifies the user with the id, which may be used again.
    created   INTEGER NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('active', 'inactive', 'locked')),
    -- As in failure; 0 if there is none.
    in_a_row  INTEGER NOT NULL CHECK (in_a_row >= 0),
    judged_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, created)
) STRICT, WITHOUT ROWID;

-- Changes that `self` tokens began for their user within the last hour; older rows are deleted with the next change. Their
-- number is limited. Removing what was begun deletes no row.
CREATE TABLE self_change (
    user_id TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;

-- Bearer tokens: the SHA-256 of each, never the token.
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

-- Links that are good once, for a user or for the administrator. A row goes when its link is used or void.
CREATE TABLE invitation (
    -- The SHA-256 of the code that the link carries, never the code.
    digest  BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    -- NULL: to the administrator's page.
    user_id TEXT    REFERENCES user (id) ON DELETE CASCADE,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_of_user ON invitation (user_id);
CREATE INDEX invitation_expires ON invitation (expires);

-- Events: who did what, when, for whom. Appended in the transaction of the change. Their times never decrease. No foreign
-- keys, because events remain when their subjects are removed.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    -- The token's id, or 'command-line', or 'totpd' for what it does by itself.
    actor    TEXT    NOT NULL,
    peer     TEXT,
    org_id   TEXT,
    user_id  TEXT,
    -- The id of the authenticator, token or organization.
    about_id TEXT,
    -- The original time of an event whose time was corrected because the clock was ahead.
    original_at INTEGER,
    -- The id of the request that made the change. NULL: it was no request.
    request_id TEXT,
    -- The name at that time of the authenticator, token or organization.
    about_name TEXT
) STRICT;
-- Ends in the event's number, as every index does: the events of one organization, newest or oldest first.
CREATE INDEX event_in_org ON event (org_id);
