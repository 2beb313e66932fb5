-- Times are microseconds since 1970, UTC. Types are those that SQLite and PostgreSQL can share:
-- PostgreSQL reads 'integer primary key autoincrement' as an identity column and 'blob' as bytea.

create table certificates (
    seq integer primary key autoincrement,
    serial text not null unique,
    issuer text not null,
    identity text not null,
    name text not null,
    dns text not null,
    not_before bigint not null,
    not_after bigint not null,
    requester text not null,
    state text not null check (state in ('intended', 'issued', 'failed', 'revoked')),
    tbs blob not null,
    der blob not null,
    fingerprint text not null,
    recorded_at bigint not null,
    revoked_at bigint,
    revocation_reason text not null,
    check ((state = 'revoked') = (revoked_at is not null))
);
-- Both end with a column that never changes, so that the live certificates are found without reading the rows of the dead.
create index certificates_name on certificates (name, seq, not_after);
create index certificates_state on certificates (state, not_after, name);
create unique index certificates_fingerprint on certificates (fingerprint) where fingerprint <> '';

create table revisions (
    number bigint primary key,
    digest text not null,
    document text not null,
    applied_at bigint not null,
    requester text not null
);
create index revisions_digest on revisions (digest, number);

create table events (
    seq integer primary key autoincrement,
    id text not null unique,
    kind text not null,
    at bigint not null,
    body text not null
);
create index events_kind on events (kind, seq);
create index events_at on events (at);

create table agents (
    name text primary key,
    serial text not null,
    joined_at bigint not null,
    last_seen bigint not null,
    acknowledged text not null,
    findings text not null
);

create table join_tokens (
    sha256 text primary key,
    expires_at bigint not null,
    used_at bigint
);
create index join_tokens_expiry on join_tokens (expires_at);

create table traffic (
    hour bigint not null,
    host text not null,
    route text not null,
    identity text not null,
    method text not null,
    decision text not null,
    count bigint not null,
    primary key (hour, host, route, identity, method, decision)
);

create table meta (
    key text primary key,
    value text not null
);
