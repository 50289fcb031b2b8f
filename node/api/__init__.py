"""The servicers of a node: bounds and order of checks, nothing that decides."""
