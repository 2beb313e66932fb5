"""The control plane: authority, ledger, REST API."""
