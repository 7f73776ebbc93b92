"""Which requests were refused, and which credentials were used: noted in memory, and stored once a second.

A refused request must be cheap: it never waits for the store. What is kept of refusals is limited, in memory
and on disk. Further ones are only counted.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from listener.deliveries import Hook, excerpt
from listener.errors import StoreError
from listener.journal import Log
from listener.records import SECRET, TOKEN, Records, Refusal, Use
from listener.redaction import Cleaner
from listener.runs import new_id

KEPT = 10_000
"""Refused requests that stay in the store: the newest ones."""
PENDING = 1_000
"""Refused requests that wait in memory to be stored. Further ones are only counted."""
SIZE_MOST = 2**53
"""The largest recorded size of a body. A client may announce a number that neither a column of the store nor
a JSON parser can hold."""
EVERY = 1.0
"""Seconds between two writes to the store."""


class Audit:
    """Records refused requests and used credentials."""

    def __init__(self, records: Records, clock: Callable[[], float], log: Log, clean: Cleaner) -> None:
        self._records = records
        self._clock = clock
        self._log = log
        self._clean = clean
        self._refusals: list[Refusal] = []
        self._uses: dict[tuple[str, str, str], Use] = {}
        self._left_out = 0
        self._writing = asyncio.Lock()

    def refused(
        self,
        request: str,
        *,
        reason: str,
        status: int,
        error: str = "",
        client: str = "",
        credential: str = "",
        hook: str = "",
        size: int = 0,
        digest: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Record and log a refused request; return the id of its record.

        `error` is the code of the answered error, for the log. Text from the client is cut short, and known
        secrets in it are redacted.
        """
        now = self._clock()
        refusal = Refusal(
            new_id(now),
            now,
            self._clean(excerpt(request)),
            self._clean(reason),
            status,
            self._clean(excerpt(client)),
            credential,
            self._clean(excerpt(hook)),
            min(size, SIZE_MOST),
            digest,
            self._clean(headers or {}),
        )
        self._log_refused(refusal, error)
        if len(self._refusals) < PENDING:
            self._refusals.append(refusal)
        else:
            self._left_out += 1
        return refusal.id

    def flooded(self) -> None:
        """Count a refused request of a client that already has enough records."""
        self._left_out += 1

    def used_secret(self, hook: Hook, secret: int, at: float) -> None:
        """Record that a hook's secret has signed a delivery."""
        self._used(SECRET, hook.name, hook.secret_name(secret), at)

    def used_token(self, name: str, at: float) -> None:
        """Record that a token was used."""
        self._used(TOKEN, "", name, at)

    async def run_forever(self) -> None:
        """Store what was recorded, again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.flush()
            except StoreError as error:
                self._log.warning("audit", error=error.code, message=error.message)

    async def flush(self) -> None:
        """Store what was recorded so far; after `StoreUnavailableError` the next call tries again."""
        async with self._writing:
            refusals, uses, left_out = self._refusals, self._uses, self._left_out
            if not (refusals or uses or left_out):
                return
            self._refusals, self._uses, self._left_out = [], {}, 0
            summary = [self._summary(left_out)] if left_out else []
            try:
                await self._write([*refusals, *summary], tuple(uses.values()))
            except StoreError:
                self._take_back(refusals, uses, left_out)
                raise

    async def _write(self, refusals: Sequence[Refusal], uses: Sequence[Use]) -> None:
        """Store everything at once, or else row by row; after `StoreError` nothing is stored."""
        try:
            await self._records.record(refusals, uses, KEPT)
        except StoreError:
            raise
        except Exception as defect:  # noqa: BLE001 (a row that can't be stored must not lose the others)
            self._log.error("defect", exc_info=defect)
            await self._write_singly(refusals, uses)

    async def _write_singly(self, refusals: Sequence[Refusal], uses: Sequence[Use]) -> None:
        """Store each row by itself; count those that can't be stored, and keep them if the store was away."""
        for one_refusal, one_use in [*(([each], []) for each in refusals), *(([], [each]) for each in uses)]:
            try:
                await self._records.record(one_refusal, one_use, KEPT)
            except StoreError:
                self._take_back(one_refusal, {(use.kind, use.owner, use.name): use for use in one_use}, 0)
            except Exception as defect:  # noqa: BLE001 (the same)
                self._left_out += len(one_refusal)
                self._log.error("defect", exc_info=defect)

    def _used(self, kind: str, owner: str, name: str, at: float, count: int = 1) -> None:
        before = self._uses.get((kind, owner, name))
        if before is not None:
            at, count = max(at, before.last), count + before.count
        self._uses[kind, owner, name] = Use(kind, owner, name, count, at)

    def _take_back(
        self, refusals: list[Refusal], uses: Mapping[tuple[str, str, str], Use], left_out: int
    ) -> None:
        """Record again what could not be stored, the oldest first, as far as there is space."""
        whole = [*refusals, *self._refusals]
        self._refusals = whole[:PENDING]
        self._left_out += left_out + len(whole[PENDING:])
        for (kind, owner, name), use in uses.items():
            self._used(kind, owner, name, use.last, use.count)

    def _summary(self, left_out: int) -> Refusal:
        now = self._clock()
        return Refusal(
            new_id(now), now, "", "there were more than are recorded one by one", 0, count=left_out
        )

    def _log_refused(self, refusal: Refusal, error: str) -> None:
        self._log.warning(
            "delivery refused" if refusal.hook else "call refused",
            id=refusal.id,
            request=refusal.request,
            hook=refusal.hook,
            error=error,
            reason=refusal.reason,
            status=refusal.status,
            client=refusal.client,
            credential=refusal.credential,
            size=refusal.size,
        )
