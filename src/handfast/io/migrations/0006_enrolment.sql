-- Tokens with which devices enrol over EST. Of a token only its SHA-256 is kept.

create table enrolment_tokens (
    sha256 text primary key,
    name text not null,
    uses_left bigint not null check (uses_left >= 0),
    expires_at bigint not null
);
create index enrolment_tokens_name on enrolment_tokens (name);
create index enrolment_tokens_expiry on enrolment_tokens (expires_at);
