-- The audit chain: each event's link holds the hash of the link before. 'number' runs from 1 without a gap; that it is
-- unique is what keeps two sealers from linking at the same time.
create table audit_links (
    number bigint primary key,
    seq bigint not null unique,
    id text not null,
    sealed_at bigint not null,
    hash text not null
);
create index audit_links_sealed on audit_links (sealed_at, number);

-- The last link that was pruned with its event, signed: what stands before the first link that is left.
create table audit_anchor (
    one bigint primary key check (one = 1),
    number bigint not null,
    statement text not null
);

-- Certificates of others, to watch: imported by an operator. Times are microseconds since 1970, UTC.
create table watched (
    seq integer primary key autoincrement,
    fingerprint text not null unique,
    serial text not null,
    issuer text not null,
    subject text not null,
    name text not null,
    dns text not null,
    not_before bigint not null,
    not_after bigint not null,
    owner text not null,
    source text not null check (source in ('imported', 'discovered')),
    requester text not null,
    recorded_at bigint not null,
    der blob not null
);
create index watched_expiry on watched (not_after, seq);

-- Who looks after the certificates of a name, where it was said.
create table owners (
    name text primary key,
    owner text not null
);
create index owners_owner on owners (owner, name);

-- Keys that were revoked as compromised, by the SHA-256 of their SubjectPublicKeyInfo. Nothing takes one out again.
create table refused_keys (
    sha256 text primary key,
    serial text not null,
    refused_at bigint not null
);

-- What revocation by issuer and by agent, and search by owner, look through.
create index certificates_issuer on certificates (issuer, not_after);
create index certificates_requester on certificates (requester, not_after);
