"""Talking to a director's REST API with nothing but the standard library."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

#: A director answers in milliseconds; an order waits for its store.
TIMEOUT_S = 10.0

#: Exit codes of ``directorctl``; 1 is "failed or not in time", 2 is click's for wrong usage.
EXIT_FAILED, EXIT_UNREACHABLE, EXIT_FORBIDDEN, EXIT_NOT_FOUND, EXIT_DIFFERS, EXIT_UNKNOWN = 1, 3, 4, 5, 6, 7

_EXITS = {401: EXIT_FORBIDDEN, 403: EXIT_FORBIDDEN, 404: EXIT_NOT_FOUND, 429: EXIT_FORBIDDEN, 504: EXIT_UNKNOWN}


class CallFailed(Exception):
    """The director could not be asked, or refused; *exit_code* says which."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Client:
    """One director's API.

    :param url: ``http://host:port`` or ``https://…``.
    :param ca: a PEM file to verify the director with, instead of the machine's authorities.
    """

    def __init__(
        self, url: str, *, user: str | None = None, password: str | None = None, ca: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = urlsplit(url)
        self._timeout_s = timeout_s
        self._context = ssl.create_default_context(cafile=ca) if self._url.scheme == "https" else None
        self._headers = {"Accept": "application/json"}
        if user is not None:
            secret = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"

    def get(self, *path: str, **query: str) -> Any:
        """What is at ``/api/v1/<path>``. Raises `CallFailed`."""
        return self._call("GET", path, query, None)

    def put(self, *path: str, **body: object) -> Any:
        """Set what is at the path. Raises `CallFailed`."""
        return self._call("PUT", path, {}, body)

    def post(self, *path: str, **body: object) -> Any:
        return self._call("POST", path, {}, body)

    def delete(self, *path: str, **body: object) -> Any:
        return self._call("DELETE", path, {}, body)

    def _call(self, method: str, path: tuple[str, ...], query: Mapping[str, str], body: object) -> Any:
        url = self._url
        target = "/api/v1/" + "/".join(quote(part, safe="") for part in path)
        if query:
            target += "?" + urlencode(query)
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(
                url.hostname or "", url.port, timeout=self._timeout_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=self._timeout_s)
        headers = dict(self._headers)
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        sent = False
        try:
            connection.request(method, target, data, headers)
            sent = True
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            if sent and method != "GET":
                raise CallFailed(f"{url.geturl()} did not answer ({error}): it is not known whether the change was made; "
                                 "look before trying again", EXIT_UNKNOWN) from error
            raise CallFailed(f"cannot reach {url.geturl()}: {_hint(error, url.scheme)}", EXIT_UNREACHABLE) from error
        finally:
            connection.close()
        if answer.status >= 400:
            self._refused(answer.status, text)
        try:
            return json.loads(text)
        except ValueError as error:
            why = f"{url.geturl()} does not answer like a director: is it an admin endpoint?"
            raise CallFailed(why, EXIT_UNREACHABLE) from error

    def _refused(self, status: int, text: bytes) -> NoReturn:
        try:
            message = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            message = f"HTTP {status}: is {self._url.geturl()} an admin endpoint?"
        if status == 401 and "Authorization" in self._headers:
            message = "the user's name or the password is wrong"
        raise CallFailed(str(message), _EXITS.get(status, EXIT_FAILED))


def _hint(error: Exception, scheme: str) -> str:
    """*error* in words that say what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}; --ca names the authority that signed it"
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}: it may speak http there, not https"
    if isinstance(error, http.client.BadStatusLine | ConnectionResetError) and scheme == "http":
        return "it does not speak http: is it an admin endpoint, or one that speaks https?"
    return str(error)
