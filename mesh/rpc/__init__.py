"""gRPC as the mesh uses it: servers, channels, and MeshError on the wire."""
