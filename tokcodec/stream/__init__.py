"""The .tokc stream, format version 3: bytes only, no network and no video."""
