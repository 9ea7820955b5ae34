"""The same order written for libraries that others would take, and for the older design."""
