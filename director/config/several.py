"""One configuration in several files: a main one, and those that its ``include`` names. Reads files; parses TOML.

Tables of several files are one table. What stands in two files is an error: a single value, an array, and a thing with a
name of its own (a service, a user, a hook), which one file has to tell wholly.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import inspect

from cluster.errors import ConfigError, Problem
from cluster.model import Configuration
from cluster.validate import join
from director.config.lines import Lines

INCLUDE = "include"
#: Files of one configuration; more is a directory of something else.
MAX_FILES = 1_000


class Document(NamedTuple):
    """A file that was read."""

    file: str | None
    data: dict[str, Any]
    lines: Lines


class Documents:
    """All files of one configuration, the main one first."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """:raises ConfigError: what stands in two of them."""
        self._documents = tuple(documents)
        self.data: dict[str, Any] = {}
        problems: list[Problem] = []
        type_ = inspect.type_info(Configuration)
        for document in self._documents:
            self.data = self._merged(self.data, document.data, type_, "", document, problems)
        if problems:
            raise ConfigError(problems)

    def located(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """*problems* with their files and lines, in the order of these."""
        found = [(self._place(problem.place), problem) for problem in problems]
        return tuple(
            problem._replace(file=self._documents[number].file, line=line)
            for (number, line), problem in sorted(found, key=lambda each: (each[0][0], each[0][1] or 0))
        )

    def _place(self, place: str) -> tuple[int, int | None]:
        """The number of the file that tells most of *place*, and the line there."""
        while place:
            for number, document in enumerate(self._documents):
                if (line := document.lines.exact(place)) is not None:
                    return number, line
            place = Lines.outer(place)
        return 0, None

    def _merged(self, one: Mapping[str, Any], other: Mapping[str, Any], type_: inspect.Type, place: str, of: Document,
                problems: list[Problem]) -> dict[str, Any]:
        merged = dict(one)
        for key, value in other.items():
            here = join(place, str(key))
            inner = _inner(type_, key)
            if key not in one:
                merged[key] = value
            elif inner is not None and isinstance(one[key], dict) and isinstance(value, dict):
                merged[key] = self._merged(one[key], value, inner, here, of, problems)
            else:
                before = next(each for each in self._documents if each.lines.exact(here) is not None)
                problems.append(Problem(here, f"is there already: {before.file}:{before.lines.exact(here)}",
                                        "one of the two files has to have it wholly", of.lines.exact(here), of.file))
        return merged


def _inner(type_: inspect.Type, key: str) -> inspect.Type | None:
    """The type of a table below one of *type_* that several files may fill together; None: one file has it."""
    if not isinstance(type_, inspect.StructType):
        return None
    for field in type_.fields:
        if field.encode_name == key:
            for each in field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,):
                if isinstance(each, inspect.StructType | inspect.DictType):
                    return each
    return None


def read(path: str) -> Documents:
    """The TOML file *path*, and what it includes.

    :raises ConfigError: a file cannot be read, is no TOML, or what two of them tell.
    """
    main = _document(_text(path), path)
    places = main.data.pop(INCLUDE, [])
    documents, problems = [main], []
    if not isinstance(places, list) or not all(isinstance(each, str) and each for each in places):
        problems.append(Problem(INCLUDE, 'expected an array of paths, such as ["conf.d"]'))
        places = []
    included: set[str] = set()
    for number, place in enumerate(places):
        where = os.path.join(os.path.dirname(path), place)
        try:
            files = _files(where)
        except OSError as error:
            problems.append(Problem(join(INCLUDE, number), f"cannot read {where}: {error.strerror or error}"))
            continue
        again = [file for file in files if os.path.realpath(file) in included]
        included.update(map(os.path.realpath, files))
        if again:
            problems.append(Problem(join(INCLUDE, number), f"{again[0]} is included already"))
        elif len(included) > MAX_FILES:
            problems.append(Problem(join(INCLUDE, number), f"{len(included)} files are more than {MAX_FILES}"))
            break
        else:
            for file in files:
                try:
                    documents.append(_document(_text(file), file))
                except ConfigError as error:
                    problems += error.problems
    for document in documents[1:]:
        if INCLUDE in document.data:
            problems.append(Problem(INCLUDE, "a file that is included includes no others", "",
                                    document.lines.exact(INCLUDE), document.file))
    if problems:
        raise ConfigError([
            problem if problem.file is not None else problem._replace(file=path, line=main.lines.line(problem.place))
            for problem in problems])
    return Documents(documents)


def parsed(text: str, file: str | None) -> Documents:
    """A document that is no file, or whose file has been read.

    :raises ConfigError: it is no TOML.
    """
    return Documents([_document(text, file)])


def _files(where: str) -> list[str]:
    """Those of a directory in the order of their names, hidden ones left out; or the file itself.

    :raises OSError: there is none.
    """
    if not os.path.isdir(where):
        os.stat(where)
        return [where]
    return [os.path.join(where, name) for name in sorted(os.listdir(where)) if name.endswith(".toml") and name[0] != "."]


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise ConfigError([Problem("", f"cannot read it: {error.strerror or error}", file=path)]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", f"not UTF-8: {error.reason} at byte {error.start}", file=path)]) from error


def _document(text: str, file: str | None) -> Document:
    try:
        return Document(file, tomllib.loads(text), Lines(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(error, text, file)]) from error
    except RecursionError:
        raise ConfigError([Problem("", "arrays or tables are nested too deeply", file=file)]) from None
    except ValueError:  # of thousands of digits
        raise ConfigError([Problem("", "a number is too long", file=file)]) from None


def _syntax_problem(error: tomllib.TOMLDecodeError, text: str, file: str | None) -> Problem:
    message, _, where = str(error).rpartition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", where)
    line = int(found[1]) if found else text.rstrip().count("\n") + 1
    column = f", column {found[2]}" if found else ""
    return Problem("", f"not TOML: {message or error}{column}", line=line, file=file)
