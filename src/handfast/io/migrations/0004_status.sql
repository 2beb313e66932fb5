-- Revocation status.

-- How many revocation lists an issuer has. It never changes: certificates name the list that they belong to.
create table status_issuers (
    issuer text primary key,
    shards bigint not null
);

-- Every address that certificates were given, newest last.
create table status_urls (
    url text primary key,
    since bigint not null
);

-- The complete lists that were made on schedule: what a list of changes is told against, and what expired entries wait for.
create table status_lists (
    issuer text not null,
    shard bigint not null,
    number bigint not null,
    made_at bigint not null,
    next_update bigint not null,
    primary key (issuer, shard, number)
);

-- Both hold all that a list says, so that a long one is read from the index alone.
create index certificates_revoked on certificates (issuer, serial, not_after, revoked_at, revocation_reason, state)
    where state = 'revoked';
create index certificates_revoked_lately on certificates (issuer, revoked_at, serial, revocation_reason, state)
    where state = 'revoked';
