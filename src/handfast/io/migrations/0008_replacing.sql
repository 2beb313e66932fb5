-- Which leaf was issued to the holder of another one. The other one counts no more once its successor was used, unless it is seen again.

create table replacing (
    successor text primary key,
    serial text not null,
    ends bigint not null,
    used_at bigint,
    again_at bigint
);
create index replacing_serial on replacing (serial);
create index replacing_ends on replacing (ends);

-- Leaves of the moments in which servers may differ about a new root, and which came with it in their bundle.
create table aware (
    serial text primary key,
    generation bigint not null,
    ends bigint not null
);
