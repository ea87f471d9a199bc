"""A visitor of the web interface without JavaScript: keeps cookies, fills in forms, follows redirects. No sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import urlencode

from tests.unit.admin.small_director import Admin, Answer

_VOID = {"meta", "link", "input", "img", "br", "hr"}


class Html(HTMLParser):
    """What tests ask of a page.

    :ivar forms: their fields by action, as they would be sent untouched; buttons are not among them.
    :ivar tags: every start tag with its attributes.
    :ivar unclosed: tags left open or closed wrongly.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.source = body.decode()
        self.forms: dict[str, dict[str, str]] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.unclosed: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._form: dict[str, str] | None = None
        self.feed(self.source)
        self.close()
        self.unclosed += self._open

    @property
    def text(self) -> str:
        """All that is written on it, with single spaces."""
        return re.sub(r"\s+", " ", "".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "form":
            self._form = self.forms.setdefault(given.get("action", ""), {})
        elif tag == "input" and self._form is not None and given.get("type") != "checkbox":
            self._form[given["name"]] = given.get("value", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open[-1:] == [tag]:
            self._open.pop()
        else:
            self.unclosed.append(f"/{tag}")
        if tag == "form":
            self._form = None

    def handle_data(self, data: str) -> None:
        self._text.append(data)


class Visitor:
    """One browser.

    :ivar cookies: as it would send them.
    :ivar last: the last answer, before redirects were followed.
    """

    def __init__(self, admin: Admin, *, peer: str = "127.0.0.1", secure: bool = False) -> None:
        self.admin = admin
        self.cookies: dict[str, str] = {}
        self.last: Answer
        self._peer = peer
        self._secure = secure

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, b"", headers)

    def page(self, path: str) -> Html:
        """The page at *path*, redirects followed."""
        answer = self.get(path)
        while answer.status == 303:
            answer = self.get(answer.headers["Location"])
        return Html(answer.body)

    def post(self, path: str, fields: Mapping[str, str] | bytes, **headers: str) -> Answer:
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return self._ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"} | headers)

    def send(self, page: Html, action: str, **fields: str) -> Answer:
        """Fill in and send the form of this action."""
        return self.post(action, page.forms[action] | fields)

    def sign_in(self, name: str = "ada", password: str = "engine") -> Answer:
        return self.send(self.page("/sign-in"), "/sign-in", name=name, password=password)

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.last = self.admin.ask(method, path, body, user=None, peer=self._peer, headers=sent, secure=self._secure)
        for cookie in self.last.headers.get_all("Set-Cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "max-age=0" in cookie.lower():
                del self.cookies[name]
        return self.last
