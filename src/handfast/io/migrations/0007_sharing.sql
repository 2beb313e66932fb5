-- What servers over one ledger give each other, so that each need not be given or make it by itself.

-- What the directory of a generation holds, sealed with the passphrase that every server has.
create table generation_files (
    generation bigint primary key,
    sha256 text not null,
    sealed blob not null
);

-- The revocation lists that were signed last, one for each place where one is found. `revision` is the count of changes
-- that each has at least, `scheduled_at` when the last one was made on schedule.
create table shared_lists (
    path text primary key,
    number bigint not null,
    revision bigint not null,
    made_at bigint not null,
    scheduled_at bigint not null,
    content blob not null
);
