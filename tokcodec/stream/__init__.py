"""The .tokc stream, format version 2: bytes only, no network and no video."""
