"""The vocabulary: SPIFFE ids, reasons, refusals, events, windows of time. Knows nothing of files, sockets or Envoy."""
