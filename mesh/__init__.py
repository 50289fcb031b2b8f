"""What every part of the mesh shares: the pure core, and the shells around it."""
