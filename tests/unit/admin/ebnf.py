"""Grammars without recursion, as they stand in the documentation, compiled to regular expressions."""

from __future__ import annotations

import re
from pathlib import Path

_TOKEN = re.compile(r'\s*(?:"(?P<literal>[^"]*)"|\? (?P<special>.*?) \?|(?P<name>[A-Za-z]\w*)|(?P<mark>[,|(){}\[\]=;]))')
_MARKS = {",": "", "|": "|", "(": "(?:", ")": ")", "{": "(?:", "}": ")*", "[": "(?:", "]": ")?"}


def grammar(document: Path) -> dict[str, str]:
    """The rules of the document's ``ebnf`` block, each as a regular expression without groups."""
    block = document.read_text().partition("```ebnf\n")[2].partition("```")[0]
    rules: dict[str, list[re.Match[str]]] = {}
    rule: list[re.Match[str]] = []
    for token in _TOKEN.finditer(block):
        if token["mark"] == "=":
            rule = rules.setdefault(rule.pop()["name"], [])
        elif token["mark"] == ";":
            rule = []
        else:
            rule.append(token)
    return {name: _regex(name, rules) for name in rules}


def _regex(name: str, rules: dict[str, list[re.Match[str]]]) -> str:
    def one(token: re.Match[str]) -> str:
        if token["literal"] is not None:
            return re.escape(token["literal"])
        if token["special"] is not None:
            return f"(?:{token['special']})"
        return _regex(token["name"], rules) if token["name"] else _MARKS[token["mark"]]

    return f"(?:{''.join(map(one, rules[name]))})"
