"""Who may become whom: entries, plans, lint, chains, revocation. Pure: time, serials and keys' signatures are arguments."""
