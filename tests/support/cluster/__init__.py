"""A Kubernetes cluster small enough for a test: rendered manifests run as processes of this machine.

No container engine is needed: a container is a process in namespaces of its own, on a read-only overlay of
this machine's files, with the volumes, user, environment and probes that its manifest names. What is
tested so is the chart: that its pods start, find each other and serve. Not Kubernetes itself: there is no
scheduler, no controller that watches, and no translation of ports.
"""
