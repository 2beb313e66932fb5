"""Handfast: mutual TLS for services that do not all live in one cluster."""

__version__ = "0.1.0"
