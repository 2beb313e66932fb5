-- ACME.

-- What lets accounts in. The MAC key is gone (empty) once it lets nobody in any more.
create table acme_bindings (
    id text primary key,
    name text not null,
    domains text not null,
    mac blob not null,
    accounts bigint not null,
    created_at bigint not null,
    expires_at bigint not null,
    requester text not null
);
create index acme_bindings_expiry on acme_bindings (expires_at);

create table acme_accounts (
    id text primary key,
    thumbprint text not null unique,
    jwk text not null,
    name text not null,
    domains text not null,
    binding text not null,
    contact text not null,
    created_at bigint not null,
    deactivated_at bigint
);

-- 'outcome' repeats what 'body' says, where it cannot change any more: '', 'valid' or 'invalid'.
create table acme_orders (
    seq integer primary key autoincrement,
    id text not null unique,
    account text not null,
    body text not null,
    version bigint not null,
    outcome text not null,
    replaces text not null,
    expires_at bigint not null
);
create index acme_orders_account on acme_orders (account, seq);
create index acme_orders_replaces on acme_orders (replaces) where replaces <> '';
create index acme_orders_expiry on acme_orders (expires_at);

-- Nonces that were used and have not expired.
create table acme_nonces (
    nonce text primary key,
    expires_at bigint not null
);
create index acme_nonces_expiry on acme_nonces (expires_at);
