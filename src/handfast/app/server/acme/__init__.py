"""ACME (RFC 8555) as the server speaks it: signed requests in, orders and certificates out."""
