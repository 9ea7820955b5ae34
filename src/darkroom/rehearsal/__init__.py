"""A whole shop without the outside: every stand-in at once, for people to look at and to try things on."""
