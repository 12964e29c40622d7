"""Archive and prune: segments, the record that spans them, and what may be taken out of a journal."""
