-- The generations of authorities, and which slices contained one that was on its way to agents.

create table generations (
    number bigint primary key,
    root bigint not null,
    predecessor bigint not null,
    stage text not null check (stage in ('prepared', 'published', 'issuing', 'retiring', 'retired')),
    since bigint not null,
    issuer text not null,
    begins bigint,
    ends bigint,
    root_begins bigint,
    root_ends bigint,
    compromised bigint not null check (compromised in (0, 1))
);
create unique index generations_issuing on generations (stage) where stage = 'issuing';

create table slices (
    digest text not null,
    generation bigint not null,
    primary key (digest, generation)
);

-- Leaves that their own holder has replaced: nobody depends on them, though they have not expired.
create table replaced (
    serial text primary key,
    ends bigint not null
);
