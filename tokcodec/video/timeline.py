"""Timestamps of a video that is read: mended, cut to the wanted part and moved. Numbers alone, in ticks."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from tokcodec.clock import ticks_of

JUMP_S = (
    Fraction(-1, 10),
    Fraction(10),
)  # earlier or later than this, a packet shows that the clock was set anew


class Wanted:
    """The part of a video that is wanted.

    Attributes:
        time_base: seconds of a tick of the result.
        begin: the first wanted tick on the clock of the source; None for no limit.
        end: the tick after the last one; None for no limit.
        shift_s: what is taken from all timestamps, in seconds; None until the first frame is known.
    """

    def __init__(self, time_base: Fraction, start_s: float, duration_s: float | None) -> None:
        """The part from `start_s` seconds after the first frame on; `duration_s` None for all the rest."""
        self.time_base = time_base
        self.begin: int | None = None
        self.end: int | None = None
        self.shift_s: Fraction | None = None
        self._wanted_s: tuple[float, float | None] | None = (start_s, duration_s)  # None once it is in ticks

    @property
    def shift(self) -> int:
        """`shift_s` in ticks; 0 until it is known."""
        return round(self.shift_s / self.time_base) if self.shift_s else 0

    def set_span(self, begin: int, end: int | None) -> None:
        """Take the frames with a timestamp of the result in [begin, end) instead; `shift_s` is known."""
        self.begin, self.end = begin + self.shift, None if end is None else end + self.shift
        self._wanted_s = None

    def set_first(self, first_s: Fraction) -> None:
        """Count from the first frame, at `first_s` seconds on the clock of the source; later calls change nothing."""
        if self._wanted_s is None:
            return
        (start_s, duration_s), self._wanted_s = self._wanted_s, None
        first = round(first_s / self.time_base)
        if start_s > 0:
            self.begin = first + ticks_of(start_s, self.time_base)
        if duration_s is not None:
            self.end = first + ticks_of(start_s + duration_s, self.time_base)

    def holds(self, time: Fraction, early: Fraction = Fraction(0)) -> bool:
        """Whether a time in ticks is wanted, or one that is so many ticks too early."""
        return (self.begin is None or time >= self.begin - early) and (self.end is None or time < self.end)

    def cut(self, begin_s: Fraction, end_s: Fraction) -> tuple[int, int] | None:
        """What is wanted of a span (a chapter), in ticks of the result; None if nothing is."""
        first, last = (round(time_s / self.time_base) - self.shift for time_s in (begin_s, end_s))
        begin = 0 if self.begin is None else self.begin - self.shift
        end = None if self.end is None else self.end - self.shift
        if first > last or (last <= begin and first != begin) or (end is not None and first >= end):
            return None
        return max(first, begin), last if end is None else min(last, end)


class Mender:
    """Timestamps of frames, one after the other, made complete and increasing.

    Attributes:
        newest: timestamp of the newest frame; None before the first.
        lasts: ticks that it lasts.
    """

    def __init__(self, step: int, warn: Callable[[str], None]) -> None:
        """Take `step` ticks for a frame until two are known; `warn` is called with what is mended."""
        self.newest: int | None = None
        self.lasts = 0
        self._step, self._warn = step, warn

    def mend(self, pts: int | None, duration: int, may_lack: bool) -> int:
        """The timestamp of the next frame.

        Args:
            pts: what the file says of it; None for nothing.
            duration: likewise; 0 for nothing.
            may_lack: whether a missing timestamp is as it should be.
        """
        if pts is None:
            if not may_lack:
                self._warn("some frames have no timestamp; filled in")
            pts = 0 if self.newest is None else self.newest + self.lasts
        if self.newest is not None:
            if pts <= self.newest:
                self._warn("timestamps run backwards; mended")
                pts = self.newest + 1
            self._step = pts - self.newest
        self.newest, self.lasts = pts, duration or self._step
        return pts


class JumpingClock:
    """A clock that was set anew on the way (MPEG-TS joined from parts), made to run on as the ffmpeg tool does it."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` is called when a gap is closed."""
        self._jump_s = Fraction(0)  # to be added to what the clock says
        self._expected_s: dict[int, Fraction] = {}  # stream to the end of its newest packet
        self._warn = warn

    def correction(self, stream: int, dts: int, duration: int, time_base: Fraction, is_even: bool) -> int:
        """Ticks to be added to the times of the next packet.

        Args:
            stream: its number.
            dts, duration: of the packet, in ticks of `time_base`.
            time_base: seconds of a tick.
            is_even: whether its stream has no gaps, as video and sound have none: only these show a jump.
        """
        dts_s = dts * time_base + self._jump_s
        late_s = dts_s - self._expected_s.get(stream, dts_s)
        if is_even and not JUMP_S[0] < late_s < JUMP_S[1]:
            self._warn("its clock jumps; closed the gap")
            self._jump_s -= late_s
        jump = round(self._jump_s / time_base)
        self._expected_s[stream] = (dts + jump + duration) * time_base
        return jump
