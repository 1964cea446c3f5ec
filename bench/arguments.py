"""The command lines of both benchmarks: wrong input ends in one line and a hint, before anything is started."""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint:  --help shows what is expected, with an example", file=sys.stderr)
        sys.exit(2)


def count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 to 1024")
    return int(text)


def file(text: str) -> pathlib.Path:
    if not pathlib.Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file '{text}'")
    return pathlib.Path(text)


def some_of(*names: str) -> Callable[[str], list[str]]:
    """NAME,... of these."""

    def parse(text: str) -> list[str]:
        given = text.split(",")
        for name in given:
            if name not in names:
                raise argparse.ArgumentTypeError(f"there is no '{name}'; there are {', '.join(names)}")
        return given

    return parse
