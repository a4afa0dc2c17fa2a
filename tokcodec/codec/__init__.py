"""File to file: video -> tokens -> stream, and back.

`encoding` reads a video (`chunking` cuts it at its scenes, `cuts`) and codes it in one or several `passes`, as the
`rate_control` asks for with its `search` for steps. `decoding` is the way back. `headers` has what a stream says of its
video. Chunks are independent, so several are coded at once. Memory is bounded by the frame size, whatever the length: a
few chunks of frames are held, never a film.
"""

from tokcodec.codec.decoding import decode_video
from tokcodec.codec.encoding import encode_video

__all__ = ["decode_video", "encode_video"]
