"""The programs: configuration, server, agent, up, command line."""
