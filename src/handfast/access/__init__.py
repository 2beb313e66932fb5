"""Who may talk to whom: identify, policy, decide, explain, what-if. Pure."""
