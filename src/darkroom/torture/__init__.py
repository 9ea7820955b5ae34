"""`darkroom torture`: a whole shop under attack, with a verdict that anyone can re-run."""
