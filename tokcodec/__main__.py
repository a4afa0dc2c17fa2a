"""The program: `tokcodec`, or `python -m tokcodec`."""

import os

try:
    from tokcodec.cli import main
except KeyboardInterrupt:  # what else is to be said of it is imported here
    os._exit(130)

if __name__ == "__main__":
    main()
