"""Video files in and out: frames with exact timestamps, colour, shape, and the other streams of the file.

The only package that imports PyAV (FFmpeg's libraries). It gives and takes plain RGB arrays, and knows
nothing of tokens. Three rules:

- Colour: pixels are converted with the matrix and range the stream is tagged with (ITU-T H.273). What is
  not tagged is guessed as players do: BT.709 from 720 lines up, else BT.601; limited range.
- Time: timestamps stay the integers of the source; no frame is dropped or repeated to make a rate regular.
- Audio, subtitles and data are copied packet by packet, never decoded.

What is lost on the way (bit depth, a stream no container takes) is said on the logger "tokcodec".
"""

from tokcodec.video.demuxer import is_pipe
from tokcodec.video.ffmpeg import is_pattern
from tokcodec.video.filters import UNFILTERED, Filters
from tokcodec.video.info import Colour, VideoInfo
from tokcodec.video.others import cut_streams, describe_streams
from tokcodec.video.reader import VideoReader
from tokcodec.video.writer import VideoWriter, kind_of

__all__ = [
    "UNFILTERED",
    "Colour",
    "Filters",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "cut_streams",
    "describe_streams",
    "is_pattern",
    "is_pipe",
    "kind_of",
]
