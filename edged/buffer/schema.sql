-- The buffer's file, format 3. Described in docs/explanation/buffer.md.

-- One row is one batch of samples. Nearly all are only ever walked in order.
CREATE TABLE log (
    seq      INTEGER PRIMARY KEY,   -- of its last sample
    first    INTEGER NOT NULL,      -- seq of its first sample
    readings INTEGER NOT NULL,
    earliest INTEGER NOT NULL,      -- times of its samples, microseconds since 1970, UTC
    latest   INTEGER NOT NULL,
    boot     TEXT NOT NULL,         -- the boot it was written in
    skew     INTEGER NOT NULL,      -- wall clock minus monotonic clock, microseconds, of its last sample
    crc      INTEGER NOT NULL,      -- CRC-32 of all other columns
    data     BLOB NOT NULL,         -- zlib, JSON
    target   TEXT NOT NULL DEFAULT '' -- '' for all; '!' for all, ahead of the others; or the one connection that is to
                                      -- get it, once more
) STRICT;

-- Those that do not go to all in their order: few, so that each way finds its own in a large backlog.
CREATE INDEX by_target ON log (target) WHERE target <> '';

-- What changes with every commit, in one row so that it costs one page.
CREATE TABLE state (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    epoch  TEXT NOT NULL,           -- the life of this file; another one means that seq starts a new story
    inode  INTEGER NOT NULL,        -- of the file: a copy has another one
    head   INTEGER NOT NULL,        -- last seq given
    crc    INTEGER NOT NULL,        -- CRC-32 of the other columns
    ledger BLOB NOT NULL            -- counters and cursors, JSON
) STRICT;

-- What an upstream refused for ever, with the reason.
CREATE TABLE dead_letters (
    id         INTEGER PRIMARY KEY,
    connection TEXT NOT NULL,
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    readings   INTEGER NOT NULL,
    time       INTEGER NOT NULL,    -- when it was refused, microseconds since 1970, UTC
    reason     TEXT NOT NULL,
    detail     TEXT NOT NULL,
    boot       TEXT NOT NULL,
    data       BLOB NOT NULL        -- its samples, as in log
) STRICT;
