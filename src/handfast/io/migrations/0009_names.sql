-- Whom a join token lets in, and the names that agents were given. Who has no certificate of a name that was given needs a token for it.

-- The only name that the token is good for. Empty where it is any that no agent was given yet.
alter table join_tokens add column agent text not null default '';

-- 'taken_by' is the public id of the token that was used last for the name.
create table agent_names (
    name text primary key,
    taken_by text not null
);
insert into agent_names (name, taken_by) select name, '' from agents;
insert into agent_names (name, taken_by)
    select distinct substr(name, 16), '' from certificates where substr(name, 1, 15) = 'handfast/agent/'
    on conflict (name) do nothing;
