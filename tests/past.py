"""A long past for a store: hundreds of thousands of ended runs, built by the database itself in seconds."""

RUNS = 200_000
LINES = 500_000
WAITING = 2_000
START = 1_600_000_000
"""When the first of the runs was made, one every 60 s since."""

# Both databases understand these: {numbers} gives 0, 1, … below a number as n, {text} makes text of a number.
_PLACE = "'site-' || ({n} % 40), CASE ({n} / 40) % 2 WHEN 0 THEN 'staging' ELSE 'qa' END"
_STATE = "CASE ({n} / 80) % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END"
_AT = "({start} + {n} * 60)"


def identifier(kind: str, number: str) -> str:
    """An expression for an id that sorts by its number."""
    return f"'{kind}-' || substr('00000000' || {number}, length('00000000' || {number}) - 7)"


def statements(series: str, *, waiting: bool = True, runs: int = RUNS) -> list[str]:
    """The statements that build it; `series` gives the numbers from 0 up to below {0} as n."""
    place, state = _PLACE.format(n="n"), _STATE.format(n="n")
    at = _AT.format(start=START, n="n")
    run, delivery = identifier("0", "n"), identifier("1", "n")
    outcome = """'{"legs": [], "warnings": [], "error": "", "message": "", "remedy": "", "durations": {}}'"""
    built = [
        (
            "INSERT INTO runs (id, site, environment, state, created_at, not_before, attempt, lines,"
            " started_at, finished_at, outcome)"
            f" SELECT {run}, {place}, {state}, {at}, {at}, 1, 2, {at} + 1, {at} + 3, {outcome}"
            f" FROM {series.format(runs)}"
        ),
        (
            "INSERT INTO deliveries (id, hook, key, received_at, size, digest, headers, facts, ignored)"
            f" SELECT {delivery}, 'forge-' || (n % 3), {delivery}, {at}, 2, 'digest-' || (n % 1000), '{{}}',"
            f" '{{}}', CASE n % 4 WHEN 0 THEN 'a ping' ELSE '' END FROM {series.format(runs)}"
        ),
        (
            "INSERT INTO triggers (id, run, delivery, site, environment, origin, actor, at)"
            f" SELECT 'trigger-' || n, {run}, {delivery}, {place}, 'hook', 'forge', {at}"
            f" FROM {series.format(runs)}"
        ),
        (
            "INSERT INTO log_lines (run, sequence, text)"
            f' SELECT {identifier("0", f"(n % {runs})")}, n / {runs} + 1, \'{{"event": "observe"}}\''
            f" FROM {series.format(runs * LINES // RUNS)}"
        ),
        (
            "INSERT INTO refusals (id, at, request, reason, status, client, credential, hook, size, digest,"
            f" headers, count) SELECT {identifier('2', 'n')}, {at}, 'POST /', 'signature', 401, '', '',"
            f" 'forge-' || (n % 3), 0, '', '{{}}', 1 FROM {series.format(2_000)}"
        ),
        (
            "INSERT INTO runs (id, site, environment, state, created_at, not_before, lane, due, turn, ready)"
            f" SELECT {identifier('3', 'n')}, 'waiting', 'e-' || n, 'queued', {at}, {at}, 'host-' || (n % 5),"
            f" {at}, {at}, n % 2 = 0 FROM {series.format(WAITING)}"
        ),
    ]
    return built if waiting else built[:-1]


def for_sqlite(*, waiting: bool = True, runs: int = RUNS) -> str:
    """The script for SQLite."""
    series = (
        "(WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {0}) SELECT n FROM s)"
    )
    return "BEGIN;" + ";".join(statements(series, waiting=waiting, runs=runs)) + ";COMMIT;"


def for_postgres(*, waiting: bool = True, runs: int = RUNS) -> str:
    """The script for PostgreSQL."""
    # A replica's session checks no foreign keys: they hold here, and cost more than the rest.
    return "SET session_replication_role = replica;" + ";".join(
        statements("generate_series(0, {0} - 1) AS s (n)", waiting=waiting, runs=runs)
    )
