"""The coding loop: a chunk of frames to motion, levels and decoded planes, and back. Integers, no torch."""
