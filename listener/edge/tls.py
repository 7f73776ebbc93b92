"""The certificate that the listener shows: taken up when it is renewed, without a restart.

A new pair makes a whole new context, which connections are given from then on. One that can't be used changes
nothing, and neither does one that is not good now in the place of one that is.
"""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from listener.edge.limits import RateLimitedLog
from listener.errors import ConfigurationError
from listener.journal import Log

LOOK = 10.0
"""Seconds between two looks at the files."""

DAY = 86400.0
SOON = 14 * DAY
"""Seconds before its end at which a certificate is warned of."""

Stamp = tuple[tuple[int, int, int], ...]

Span = tuple[datetime, datetime]
"""From when until when a certificate is good."""


class Certificates:
    """The pair of files, and what was last read from them."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        load: Callable[[Path, Path], ssl.SSLContext],
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._files = (certificate, key)
        self._load = load
        self._clock = clock
        self._log = log
        self._told_at = 0.0
        self._refused: Stamp = ()
        """A pair that could not be used: it is told when it is still there at the next look."""
        self._told: Stamp = ()
        """A pair that could not be used and was told."""
        self._stamp = self._look()
        self._context, self._span = self._read()
        self._tell()

    def context(self, limited_log: RateLimitedLog) -> ssl.SSLContext:
        """Return a context for a server that shows the newest certificate to each client."""
        context = self._load(*self._files)
        context.sni_callback = self._show
        context.sslobject_class = _telling(limited_log)
        return context

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._context

    async def watch(self) -> None:
        """Take every new pair up, for ever."""
        while True:
            await asyncio.sleep(LOOK)
            self.renew()

    def renew(self) -> None:
        """Take a new pair up, if there is one."""
        stamp = self._look()
        if self._clock() - self._told_at >= DAY:
            self._tell()
        if stamp == self._stamp:
            return
        try:
            self._context, self._span = self._better(*self._read())
        except ConfigurationError as error:
            # Between the writing of the one file and of the other they do not fit: that passes.
            if stamp == self._refused != self._told:
                self._told = stamp
                self._log.error("certificate", kept="the old one", reason=error.message, remedy=error.remedy)
            self._refused = stamp
            return
        self._stamp = stamp
        self._tell()

    def _better(self, context: ssl.SSLContext, span: Span) -> tuple[ssl.SSLContext, Span]:
        """Return a new pair; raise `ConfigurationError` if it is not good now and the old one is."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        if not _good(span, now) and _good(self._span, now):
            fault = "has expired" if span[1] <= now else f"is not good before {span[0].isoformat()}"
            raise ConfigurationError(
                f"server.tls: the new certificate {fault}.", remedy="write one that is good now"
            )
        return context, span

    def _read(self) -> tuple[ssl.SSLContext, Span]:
        """Return the pair as it is now, and when it is good; raise `ConfigurationError`."""
        context = self._load(*self._files)
        try:
            certificate = x509.load_pem_x509_certificate(self._files[0].read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError("server.tls: the certificate can't be read any more.") from error
        return context, (certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def _look(self) -> Stamp:
        """Return what changes when a file is written or replaced."""
        found = []
        for path in self._files:
            try:
                about = path.stat()
                found.append((about.st_ino, about.st_mtime_ns, about.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _tell(self) -> None:
        """Log how long the certificate is good, as a warning when that is not long."""
        now = self._told_at = self._clock()
        ends = self._span[1]
        left = ends.timestamp() - now
        facts = {"expires": ends.astimezone(UTC).isoformat(), "days": int(left // DAY)}
        if left > SOON:
            self._log.info("certificate", **facts)
        else:
            remedy = "renew it: a new pair is taken up without a restart"
            reason = "it has expired" if left <= 0 else "it expires soon"
            self._log.warning("certificate", reason=reason, remedy=remedy, **facts)


def _good(span: Span, now: datetime) -> bool:
    return span[0] <= now < span[1]


def _telling(limited_log: RateLimitedLog) -> type[ssl.SSLObject]:
    """Return the kind of connection that says why a handshake fails."""

    class Telling(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                plain = error.reason == "HTTP_REQUEST"
                reason = "plain HTTP, and this port speaks TLS" if plain else str(error.reason).lower()
                limited_log.tell("unreadable", reason, reason=reason)
                raise

    return Telling
