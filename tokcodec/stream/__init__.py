"""The .tokc stream, as FORMAT.md specifies it: bytes only, no network and no video."""
