"""The listener's TLS certificate: a renewed one is loaded without a restart.

New connections get the new certificate and key. A pair that can't be used changes nothing. Neither does a
certificate that is not valid now, if the old one is.
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
"""Seconds between two checks of the files."""

DAY = 86400.0
SOON = 14 * DAY
"""Seconds before its expiry from which the log warns of it."""

Stamp = tuple[tuple[int, int, int], ...]

Span = tuple[datetime, datetime]
"""The beginning and end of a certificate's validity."""


class Certificates:
    """The two files, and what was last read from them."""

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
        self._logged_at = 0.0
        self._refused: Stamp = ()
        """A pair that could not be used. It is logged if it is still there at the next check."""
        self._logged: Stamp = ()
        """A pair that could not be used, and was logged."""
        self._stamp = self._look()
        self._context, self._span = self._read()
        self._log_expiry()

    def context(self, limited_log: RateLimitedLog) -> ssl.SSLContext:
        """Return a context for a server that shows the newest certificate to each client."""
        context = self._load(*self._files)
        context.sni_callback = self._show
        context.sslobject_class = _logging_ssl_object(limited_log)
        return context

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._context

    async def watch(self) -> None:
        """Load every new pair, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            self.renew()

    def renew(self) -> None:
        """Load a new pair, if there is one."""
        stamp = self._look()
        if self._clock() - self._logged_at >= DAY:
            self._log_expiry()
        if stamp == self._stamp:
            return
        try:
            self._context, self._span = self._better(*self._read())
        except ConfigurationError as error:
            # While the two files are being written, they may not fit together for a moment.
            if stamp == self._refused != self._logged:
                self._logged = stamp
                self._log.error("certificate", kept="the old one", reason=error.message, remedy=error.remedy)
            self._refused = stamp
            return
        self._stamp = stamp
        self._log_expiry()

    def _better(self, context: ssl.SSLContext, span: Span) -> tuple[ssl.SSLContext, Span]:
        """Return a new pair; raise `ConfigurationError` if it is not valid now and the old one is."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        if not _valid(span, now) and _valid(self._span, now):
            fault = "has expired" if span[1] <= now else f"is not valid before {span[0].isoformat()}"
            raise ConfigurationError(
                f"server.tls: the new certificate {fault}.", remedy="install a certificate that is valid now"
            )
        return context, span

    def _read(self) -> tuple[ssl.SSLContext, Span]:
        """Return the pair as it is now, and its validity; raise `ConfigurationError`."""
        context = self._load(*self._files)
        try:
            certificate = x509.load_pem_x509_certificate(self._files[0].read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError("server.tls: the certificate can't be read any more.") from error
        return context, (certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def _look(self) -> Stamp:
        """Return facts that change when a file is written or replaced."""
        found = []
        for path in self._files:
            try:
                about = path.stat()
                found.append((about.st_ino, about.st_mtime_ns, about.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _log_expiry(self) -> None:
        """Log how long the certificate is valid, as a warning if that is not long."""
        now = self._logged_at = self._clock()
        ends = self._span[1]
        left = ends.timestamp() - now
        facts = {"expires": ends.astimezone(UTC).isoformat(), "days": int(left // DAY)}
        if left > SOON:
            self._log.info("certificate", **facts)
        else:
            remedy = "renew it: the listener loads the new files without a restart"
            reason = "it has expired" if left <= 0 else "it expires soon"
            self._log.warning("certificate", reason=reason, remedy=remedy, **facts)


def _valid(span: Span, now: datetime) -> bool:
    return span[0] <= now < span[1]


def _logging_ssl_object(limited_log: RateLimitedLog) -> type[ssl.SSLObject]:
    """Return an SSL object that logs why a handshake fails."""

    class LoggingSSLObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                plain = error.reason == "HTTP_REQUEST"
                reason = (
                    "the client speaks plain HTTP, but this port is TLS"
                    if plain
                    else str(error.reason).lower()
                )
                limited_log.warning("unreadable", reason, reason=reason)
                raise

    return LoggingSSLObject
