# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand a notification to one receiver, and find out whether it was taken."""

from __future__ import annotations

import http.client
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any

from . import messages

if TYPE_CHECKING:
    from .messages import Notification, Request
    from .settings import Receiver, Smtp

_ANSWER_BYTES = 65536


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere becomes a GET, whose 200 says nothing about the message."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


def deliver(receiver: Receiver, told: Notification, timeout_seconds: float) -> str | None:
    """None when the receiver took it, else why not. Never raises for what a receiver or the network does."""
    try:
        if receiver.smtp is not None:
            _mail(receiver.smtp, receiver.ca, told, timeout_seconds)
            return None
        context = ssl.create_default_context(cafile=str(receiver.ca) if receiver.ca else None)
        requests = messages.KINDS[receiver.kind](told, receiver.url or "", receiver.secret, time.time())
        for request in requests:
            why = _post(receiver.kind, request, context, timeout_seconds)
            if why is not None:
                return why
    except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
        # The class and not always the words: those of urllib may repeat the address, which is a secret.
        return _words(error)
    return None


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, OSError):
        error = reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP {error.smtp_code}: {error.smtp_error!r}"
    return type(error).__name__


def _post(kind: str, request: Request, context: ssl.SSLContext, timeout_seconds: float) -> str | None:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "diting"}
    # The settings let in nothing but http and https.
    wanted = urllib.request.Request(request.url, data=request.body, headers=headers, method="POST")  # noqa: S310
    try:
        with opener.open(wanted, timeout=timeout_seconds) as answer:
            return messages.refusal(kind, answer.status, answer.read(_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return messages.refusal(kind, error.code, error.read(_ANSWER_BYTES))


def _mail(settings: Smtp, ca: Any, told: Notification, timeout_seconds: float) -> None:
    message = EmailMessage()
    message["Subject"], body = messages.email(told)
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="diting.invalid")
    message.set_content(body)
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if settings.tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.host, settings.port, timeout=timeout_seconds, context=context
        )
    else:
        client = smtplib.SMTP(settings.host, settings.port, timeout=timeout_seconds)
    with client:
        if settings.tls == "starttls":
            client.starttls(context=context)
        if settings.user:
            client.login(settings.user, settings.password)
        refused = client.send_message(message)
        if refused:
            # The server takes the mail for some and not for others, and says so without an error.
            raise smtplib.SMTPRecipientsRefused(refused)
