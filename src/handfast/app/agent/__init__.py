"""The agent: keys and certificates of this host, Envoy, and what Envoy reports."""
