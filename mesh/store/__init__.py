"""The board: where signed records lie. A port, an in-memory twin and etcd."""
