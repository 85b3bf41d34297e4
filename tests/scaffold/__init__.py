"""What `moorage init` writes, rendered, run and compared; run once, not in each cell."""
