"""
The options of `twistd msgbus` in a file (`--config`), as TOML: each by its own long name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twisted.python import usage

from ..message import Invalid
from .access_files import read

__all__ = ["ConfigFile"]

# Options that are no settings of a bus.
_NOT_HERE = ("config", "check-access", "help", "version")


class ConfigFile:
    """
    What such a file says.

    Attributes:
        file: Where it is.
        values: What it gives, by the names of options.
    """

    def __init__(self, file: Path, text: str, values: Mapping[str, Any]) -> None:
        self.file = file
        self.values = values
        self._text = text

    @classmethod
    def read(cls, file: Path, options: usage.Options) -> ConfigFile:
        """
        Read a file, and check that it gives nothing but these options, each as a text, a
        number, a list or `true`, as the option takes it.  One without a value takes the
        number of times that it is given, too.

        Args:
            options: Those that there are.  An option whose value is a list at first may be
                given several times.

        Raises:
            Invalid: The file cannot be read, or says something else.  The text names the
                file and the line.
        """
        try:
            text = read(file).decode()
            config = cls(file, text, tomllib.loads(text))
        except ValueError as error:
            if isinstance(error, Invalid):
                raise
            raise Invalid(f"{file} is no TOML: {error}.") from None
        for name in config.values:
            config._check(name, options)
        return config

    def apply(self, name: str, options: usage.Options) -> None:
        """
        Have these options take what the file says of one of them, as from a command line.

        Raises:
            Invalid: They do not take it.
        """
        take = getattr(options, f"opt_{name.replace('-', '_')}")
        try:
            if f"{name}=" in options.longOpt:
                for value in self._given(name):
                    take(str(value))
            else:
                for _ in range(self.values[name]):
                    take()
        except usage.UsageError as error:
            raise self._wrong(name, str(error)) from None

    def _given(self, name: str) -> Iterator[object]:
        value = self.values[name]
        yield from value if isinstance(value, list) else [value]

    def _check(self, name: str, options: usage.Options) -> None:
        takes_value = f"{name}=" in options.longOpt
        if name in _NOT_HERE or not (takes_value or name in options.longOpt):
            raise self._wrong(name, f"There is no option {name!r} here.")
        value = self.values[name]
        if not takes_value:
            wanted = "true, or how often it is given"
            is_right = isinstance(value, int) and value in range(10)
        elif isinstance(options.get(name), list):
            wanted = "a text, or a list of texts"
            is_right = all(isinstance(each, str) for each in self._given(name))
        else:
            wanted = "a text or a number"
            is_right = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not is_right:
            raise self._wrong(name, f"{name!r} should be {wanted}.")

    def _wrong(self, name: str, sentence: str) -> Invalid:
        found = re.search(rf"^[ \t\[]*[\"']?{re.escape(name)}\b", self._text, re.MULTILINE)
        if found is None:
            return Invalid(f"{self.file}: {sentence}")
        line = self._text.count("\n", 0, found.start()) + 1
        return Invalid(f"{self.file}, line {line}: {sentence}")
