"""Finds the fields in a form (multipart/form-data, RFC 7578) that name its way, and changes only those."""

from __future__ import annotations

from email.message import Message

from modelway.errors import InvalidRequest
from modelway.prices.estimate import tokens_of_characters

_MAX_VALUE_BYTES = 1024


class Form:
    """A form as it came: files in it are neither decoded nor kept anywhere else."""

    max_tokens: int | None = None
    choices: int | None = None

    def __init__(self, body: bytes, content_type: str) -> None:
        boundary = _header("content-type", content_type).get_boundary()
        if not boundary:
            raise InvalidRequest("the form has no boundary", hint="let the HTTP library write Content-Type")
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._parts = (b"\r\n" + body).split(self._delimiter)
        if len(self._parts) < 2 or not self._parts[-1].startswith(b"--"):
            raise InvalidRequest("the form is cut off, or its boundary is another one")
        self.provider, self.model = self._value(b"provider"), self._value(b"model")
        self.stream = self._value(b"stream") == "true"

    def said(self) -> bytes:
        """All that it says: equal where only the boundary differs, which libraries draw by lot."""
        return b"\r\n--".join(self._parts)

    def tokens(self) -> int:
        """About how many tokens its texts have; files have none that could be told by their length."""
        parts = [part.partition(b"\r\n\r\n") for part in self._parts[1:-1]]
        texts = [value for head, _, value in parts if b"filename" not in head.lower()]
        return tokens_of_characters(sum(len(text) for text in texts))

    def addressed_to(self, model: str) -> bytes:
        """The body for the upstream, with its name of the model and without the provider's."""
        if model == self.model and not self.provider:
            return self._body
        parts = [self._parts[0]]
        for part in self._parts[1:-1]:
            head, blank, value = part.partition(b"\r\n\r\n")
            match _name(head):
                case b"provider":
                    continue
                case b"model":
                    value = model.encode()
            parts.append(head + blank + value)
        return self._delimiter.join([*parts, self._parts[-1]])[2:]

    def _value(self, name: bytes) -> str:
        """A field's text; "" where there is none. Said twice it is refused, as readers would differ."""
        values = []
        for part in self._parts[1:-1]:
            head, _, value = part.partition(b"\r\n\r\n")
            if _name(head) == name:
                values.append(value)
        if len(values) > 1:
            raise InvalidRequest(f"`{name.decode()}` stands twice in the form", param=name.decode())
        if values and len(values[0]) > _MAX_VALUE_BYTES:
            raise InvalidRequest(
                f"`{name.decode()}` is longer than {_MAX_VALUE_BYTES} bytes", param=name.decode()
            )
        try:
            return values[0].decode() if values else ""
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name.decode()}` is not UTF-8 text", param=name.decode()) from None


def _name(head: bytes) -> bytes:
    """What the field of a part is called; "" where its head does not say."""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            name = _header("content-disposition", value.decode("latin-1")).get_param(
                "name", header="content-disposition"
            )
            return name.encode("latin-1") if isinstance(name, str) else b""
    return b""


def _header(name: str, value: str) -> Message:
    """One header, which the standard library knows how to take apart."""
    message = Message()
    message[name] = " ".join(value.split())
    return message
