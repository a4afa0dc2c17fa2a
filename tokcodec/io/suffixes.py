"""What a file is taken for by the end of its name: with the dot, in small letters."""

from __future__ import annotations

VIDEO = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".webp", ".wmv", ".y4m"}
)
IMAGE = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})  # .webp may move; one frame is all that is sure
ARRAYS = frozenset({".npz", ".safetensors"})
STREAM = ".tokc"
