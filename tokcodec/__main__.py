"""`python -m tokcodec` is the command line."""

from tokcodec.cli import main

if __name__ == "__main__":
    main()
