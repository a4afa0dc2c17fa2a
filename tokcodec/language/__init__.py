"""A language of tokens: a masked model over levels and motion that never sees a pixel."""
