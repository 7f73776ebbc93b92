"""The page in HTML."""

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping
from string import Template
from urllib.parse import urlencode

from listener.access import Caller
from listener.redaction import Cleaner
from listener.web.answers.sites import Drift, DriftUnknown, EnvironmentView, LegsDrift, SitesPage, SiteView
from listener.web.pages import Page

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
header { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; justify-content: space-between; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; }
th:first-child { width: 20%; }
th:nth-child(3), th:last-child { width: 15%; }
td { overflow-wrap: anywhere; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid; }
input, button { font: inherit; padding: .3rem .6rem; }
input { display: block; margin: .3rem 0 .8rem; width: min(30rem, 100%); box-sizing: border-box; }
"""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    # Other sites learn nothing. `no-referrer` would also take the Origin from the page's own forms.
    "Referrer-Policy": "same-origin",
}

_DOCUMENT = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")

_SIGN_IN = Template("""<main>
<h1>Staging environments</h1>
$message<form method="post" action="/session">
<label for="token">Token</label>
<input type="password" id="token" name="token" required autocomplete="current-password"$described>
<button type="submit">Sign in</button>
</form>
</main>""")

_OVERVIEW = Template("""<header>
<h1>Staging environments</h1>
<form method="post" action="/session/end">
<span>Signed in as <strong>$name</strong> ($role)</span>
<button type="submit">Sign out</button>
</form>
</header>
<main>
$sites
</main>""")

_SITE = Template("""<section>
<h2>$site</h2>
<table>
<thead>
<tr><th scope="col">Environment</th><th scope="col">State</th><th scope="col">Looked at</th>
<th scope="col">Last success</th></tr>
</thead>
<tbody>
$rows
</tbody>
</table>
</section>""")


_clean = Cleaner()


def escape(text: str) -> str:
    """Return text for HTML. Characters that control it, hide it or turn its direction are shown."""
    return html.escape(_clean(text))


def sign_in(message: str = "") -> str:
    """Return the form to sign in; `message` says why the last attempt failed."""
    alert = f'<p role="alert" id="message">{escape(message)}</p>\n' if message else ""
    described = ' aria-describedby="message" aria-invalid="true"' if message else ""
    return _document("Sign in", _SIGN_IN.substitute(message=alert, described=described))


def overview(caller: Caller, found: SitesPage, page: Page) -> str:
    """Return the page for a caller who is signed in: what was found for this part of the list."""
    none = "There are no further sites." if page.after else "There is no site that you may see."
    sections = [_site(site) for site in found.sites] or [f"<p>{none}</p>"]
    sections += [
        f"<p>Sites of the pattern {escape(each.pattern)} can't be listed: {escape(each.message)}</p>"
        for each in found.unlisted
    ]
    sections += _links(found, page)
    body = _OVERVIEW.substitute(name=escape(caller.name), role=caller.role.value, sites="\n".join(sections))
    return _document("Staging environments", body)


def _document(title: str, body: str) -> str:
    return _DOCUMENT.substitute(title=title, style=_STYLE, body=body)


def _links(found: SitesPage, page: Page) -> Iterator[str]:
    """Yield the links: to a fresh look, to the first page, to the next page."""
    here = urlencode({"after": page.after, "limit": page.limit, "fresh": "true"})
    links = [f'<a href="{escape(f"/?{here}")}">Look again</a>']
    if page.after:
        links.append('<a href="/">First page</a>')
    if found.next is not None:
        query = urlencode({"after": found.next, "limit": page.limit})
        links.append(f'<a rel="next" href="{escape(f"/?{query}")}">Next page</a>')
    yield f'<nav aria-label="Pages">{" ".join(links)}</nav>'


def _site(site: SiteView) -> str:
    rows = "\n".join(map(_row, site.environments))
    return _SITE.substitute(site=escape(site.site), rows=rows)


def _row(environment: EnvironmentView) -> str:
    last = environment.last_success
    success = "none yet" if last is None else _time(last.at)
    looked = "not yet" if environment.looked_at is None else _time(environment.looked_at)
    states = "<br>\n".join(map(escape, _states(environment)))
    cells = "\n".join(f"<td>{cell}</td>" for cell in (states, looked, success))
    return f'<tr><th scope="row">{escape(environment.name)}</th>\n{cells}</tr>'


def _time(at: str) -> str:
    """Return a time of the API, to the second, as a person reads it."""
    return f'<time datetime="{escape(at)}">{escape(_read(at))}</time>'


def _read(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"


def _states(environment: EnvironmentView) -> Iterator[str]:
    """Yield how an environment stands in each repository that carries it, and its hold."""
    drift, hold = environment.drift, environment.hold
    if isinstance(drift, LegsDrift):
        yield from (f"{leg.repository}: {_state(leg)}" for leg in drift.legs)
    else:
        yield _state(drift)
    if hold is not None:
        yield f"on hold since {_read(hold.since)} by {hold.actor}: {hold.reason}"


def _state(drift: Drift | DriftUnknown) -> str:
    if isinstance(drift, DriftUnknown):
        return drift.message
    if drift.equal:
        return "equal to live"
    paths = f"add {drift.added_count}, change {drift.changed_count} and remove {drift.removed_count} paths"
    return f"differs from live: a sync would {paths}"
