"""Everything that waits, reads, writes or rolls dice."""
