"""`python -m bridge.cli`: the command, where the console script is not on the path.

Such as in a checkout, in a test, or under a debugger.
"""

from bridge.cli import main

if __name__ == "__main__":
    main()
