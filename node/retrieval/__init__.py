"""Finding what a node's documents say: passages, and reading the answer out of them."""
