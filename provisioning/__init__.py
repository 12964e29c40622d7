"""Making and keeping a box: its first files, its people."""
