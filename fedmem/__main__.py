"""`python -m fedmem` is the command `fedmem`."""

from fedmem.cli import main

if __name__ == "__main__":
    main()
