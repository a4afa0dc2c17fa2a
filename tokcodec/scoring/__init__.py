"""How good pictures are: scores of one video against another, and the goals that an encoder is given."""
