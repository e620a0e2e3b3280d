"""Wire formats: pure codecs in both directions, without I/O."""
