"""Identity: X.509-SVIDs, trust bundles, TLS and signed statements.

The only package that builds or reads X.509. It knows who somebody is and which roots vouch for it;
what that somebody may do is for policies, record rules and permits to say.
"""
