"""The profile "lfq": how many integers a position has, and of how many bits. Other streams have the default profile.

It is one byte of the header, so no command needs more to tell the profiles apart.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT, LFQ = "default", "lfq"  # what people call the two
MAX_BITS, MAX_DEPTH = 30, 16
MOTION_BITS = 18  # of the integer of motion


class Profile(NamedTuple):
    """What a position, 16x16 pixels of a frame, consists of: `depth` lookup-free integers, then one of motion.

    Attributes:
        bits: of a lookup-free integer, an even number from 2 to 30.
        depth: lookup-free integers of a position, 1 to 16.
    """

    bits: int = 18
    depth: int = 8

    @property
    def streams(self) -> int:
        """Integers of a position."""
        return self.depth + 1

    @property
    def digits(self) -> int:
        """Of a lookup-free integer: each is two bits."""
        return self.bits // 2

    @property
    def code(self) -> int:
        """Its byte in the header, above 0."""
        return self.bits // 2 | (self.depth - 1) << 4

    @property
    def widths(self) -> list[int]:
        """Bits of each integer of a position."""
        return [self.bits] * self.depth + [MOTION_BITS]

    def __str__(self) -> str:
        return f"lfq of {self.depth} x {self.bits} bits"


def checked(bits: int, depth: int) -> Profile:
    """The profile of these numbers.

    Raises:
        ValueError: they are out of range.
    """
    if not (2 <= bits <= MAX_BITS and bits % 2 == 0):
        raise ValueError(f"an integer has an even number of bits from 2 to {MAX_BITS}, not {bits}")
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"a position has 1 to {MAX_DEPTH} integers, not {depth}")
    return Profile(bits, depth)


def profile_of(code: int) -> Profile | None:
    """The profile of a header's byte; None is the default one.

    Raises:
        ValueError: there is no such profile.
    """
    return None if code == 0 else checked(2 * (code & 15), (code >> 4) + 1)


def name_of(profile: Profile | None) -> str:
    """What people call a profile; None is the default one."""
    return DEFAULT if profile is None else LFQ
