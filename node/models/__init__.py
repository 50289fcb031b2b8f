"""Getting a model onto a node's disk before the node starts: `mesh-model`.

The node itself then needs no way out of its network. What arrives is bounded, judged by name, and
compared with a digest that somebody trusted, before it appears under the name it was wanted by.
"""
