"""What Envoy is told, and what it tells us: world to resources, access log to events. Pure."""
