"""`python -m fedmem` is the command `fedmem`."""

from fedmem.cli.main import main

if __name__ == "__main__":
    main()
