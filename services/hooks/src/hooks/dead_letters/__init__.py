"""Dead letters: written, listed, replayed and removed."""
