"""Who gets which certificate: join tokens, and the rules of issuing. Keys and X.509 are mesh/identity's."""
