# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the alert relay: whom it tells, and from whom it wants to hear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ..guards.runtime.settings import NAME_PATTERN, AbsolutePath, Port, Strict, read_json

if TYPE_CHECKING:
    from pathlib import Path


def _address(text: str) -> str:
    # Its own words for what is wrong: an address of a chat room is a secret, and must not be repeated.
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("wanted an address without blanks in it")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("wanted an address that begins with http:// or https:// and names a host")
    return text


Address = Annotated[str, AfterValidator(_address)]


class Smtp(Strict):
    """How e-mail is handed over."""

    host: str = Field(min_length=1, description="Mail server")
    port: Port = Field(587, description="Its port")
    tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="How the way to it is encrypted"
    )
    user: str = Field("", description="Account; empty sends without one")
    password: str = Field("", description="Its password")
    sender: str = Field(min_length=3, description="Address that mails come from")
    to: list[str] = Field(min_length=1, description="Addresses that mails go to")


class Receiver(Strict):
    """One place that people look at."""

    name: str = Field(pattern=NAME_PATTERN, description="Name, in addresses and metrics")
    kind: Literal["webhook", "dingtalk", "feishu", "wecom", "pagerduty", "email"] = Field(
        description="What it is"
    )
    url: Address | None = Field(None, description="Where messages are posted; all kinds but email")
    secret: str = Field(
        "", description="Signing secret of the robot (dingtalk, feishu) or routing key (pagerduty)"
    )
    ca: AbsolutePath | None = Field(
        None, description="PEM file of the receiver's CA; the system's without it"
    )
    smtp: Smtp | None = Field(None, description="For email")

    @model_validator(mode="after")
    def _complete(self) -> Receiver:
        if (self.kind == "email") != (self.smtp is not None):
            raise ValueError("smtp: wanted for kind email, and for no other")
        if (self.kind == "email") == (self.url is not None):
            raise ValueError("url: wanted for every kind but email")
        if self.kind == "pagerduty" and not self.secret:
            raise ValueError("secret: wanted the routing key of the service")
        return self


class Heartbeat(Strict):
    """An alerting that says all the time that it is well."""

    name: str = Field(pattern=NAME_PATTERN, description="Whose it is")
    limit_seconds: float = Field(
        300.0, ge=2, le=86400, description="Silent for longer than this, people are told"
    )


class Settings(Strict):
    """The relay. Times in seconds."""

    address: str = Field(min_length=1, description="Address to listen on")
    port: Port = Field(description="Port to listen on")
    ca: AbsolutePath = Field(description="PEM file of the CA of those who may speak to the relay")
    certificate: AbsolutePath = Field(description="PEM file of the relay's certificate")
    key: AbsolutePath = Field(description="PEM file of its key")
    clients: list[str] = Field(
        min_length=1, description="Names in the certificates that may speak to the relay"
    )
    receivers: list[Receiver] = Field(min_length=1, description="Whom the relay can tell")
    direct: list[str] = Field(min_length=1, description="Receivers that are told when the alerting is silent")
    heartbeats: list[Heartbeat] = Field(description="Whom the relay wants to hear from")
    repeat_seconds: float = Field(
        3600.0, ge=60, le=86400, description="A silence that lasts is told again this often"
    )
    timeout_seconds: float = Field(10.0, gt=0, le=60, description="A receiver that takes longer has failed")
    retry_seconds: float = Field(5.0, gt=0, le=600, description="Between two attempts to tell of a silence")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [receiver.name for receiver in self.receivers]
        if len(set(names)) != len(names):
            raise ValueError(f"receivers: found {names}, wanted each name once")
        beats = [beat.name for beat in self.heartbeats]
        if len(set(beats)) != len(beats):
            raise ValueError(f"heartbeats: found {beats}, wanted each name once")
        if unknown := sorted(set(self.direct) - set(names)):
            raise ValueError(f"direct: found {unknown}, wanted names of receivers ({', '.join(names)})")
        return self


def load(path: Path) -> Settings:
    """Read the settings. Raises ConfigError; no value is repeated in it, since many are secrets."""
    return read_json(Settings, path)
