"""Questions to this node's documents, and questions that this node asks others."""
