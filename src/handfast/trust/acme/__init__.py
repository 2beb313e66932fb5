"""ACME (RFC 8555) without a socket: who signed what, which names an order proves, when a certificate may be made.

Decides states and checks bytes. Refuses to know how a challenge is reached, where anything is kept, and who a workload is.
"""
