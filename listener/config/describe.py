"""What a configuration says, for a person and as JSON, without its secrets."""

from dataclasses import asdict
from typing import Any

from listener.access import Token
from listener.config.sections import MetricsSection, ServerSection, StudioSection, utc
from listener.config.settings import Settings
from listener.deliveries import Hook
from listener.signatures import PATH
from listener.sites import Access, Environment, Host, Site, Sites


def describe(settings: Settings) -> list[str]:
    """Return what a configuration says, one line for each thing, without secrets. Warnings come last."""
    server, sync = settings.server, settings.sync
    return [
        _server_line(server),
        f"store: {settings.store_name}",
        *(_ssh_line(host) for host in list(settings.hosts.values())[:1]),
        *(_host_line(host) for host in settings.hosts.values()),
        *(line for site in _configured(settings.sites) for line in _site_lines(site)),
        *(_hook_line(hook) for hook in settings.hooks.values()),
        *(_token_line(token) for token in settings.tokens),
        *(_studio_line(studio) for studio in (settings.studio,) if studio),
        f"sync: at most {sync.concurrency} at a time, each tried up to {sync.retry.attempts} times",
        f"schedule: {_schedule_text(sync.interval)}",
        f"metrics: {_metrics_text(settings.metrics)}",
        f"log: {settings.log.level} and above, format {settings.log.format}",
        *(f"warning: {warning}" for warning in settings.warnings),
    ]


def _server_line(server: ServerSection) -> str:
    speaks = "http" if server.tls is None else "https"
    proxies = ", ".join(str(network) for network in server.trusted_proxies)
    behind = f", behind the trusted proxies {proxies}" if proxies else ""
    authority = _authority(server.host, server.port)
    return f"server: {speaks} on {authority}{behind}, a caller waits up to {server.wait:g} s"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ssh_line(host: Host) -> str:
    shown = [f"the key {host.identity}"] if host.identity else []
    shown += [f"the keys of the agent at {host.agent}"] if host.agent else []
    ways = f", reaches hosts as {host.config} says" if host.config else ""
    return f"ssh: logs in with {', then '.join(shown)}{ways}"


def _host_line(host: Host) -> str:
    address = host.address if host.port is None else _authority(host.address, host.port)
    through = f", through {host.via}" if host.via else ""
    through += _ACCESSES.get(host.access, "")
    return f"host {host.name}: {host.user}@{address}{through}"


_ACCESSES = {Access.GIT: ", git's own services only", Access.RESTRICTED: ", by a restricted key"}


def _configured(sites: Sites) -> list[Site]:
    """Return the sites as they are configured, patterns last."""
    return [*sites, *(pattern.template for pattern in sites.patterns)]


def _site_lines(site: Site) -> list[str]:
    return [
        f"site {site.id}: {site.repository}, live branch {site.live}",
        *(f"environment {site.id}/{e.name}: {_environment_text(e)}" for e in site.environments.values()),
    ]


def _environment_text(environment: Environment) -> str:
    when = "by every publish to live" if environment.follow else "only by a call that names it"
    branches = ", ".join(
        f"branch {leg.branch}" + ("" if leg.own else f" on {leg}") for leg in environment.legs
    )
    return f"{branches}, policy {environment.policy}, synced {when}"


def _hook_line(hook: Hook) -> str:
    secrets = "1 secret" if len(hook.secrets) == 1 else f"{len(hook.secrets)} secrets"
    selects = [f"{repository} is {site}" for repository, site in hook.repositories.items()]
    selects += sorted(hook.sites) + ([hook.site] if hook.site else [])
    selects += [f"branch {hook.branch}"] if hook.branch else []
    selects += [f"environment {name} only" for name in sorted(hook.environments)]
    selects += [f"from {network} only" for network in hook.networks]
    path = f"/hooks/{hook.name}" + ("/SECRET" if hook.scheme == PATH else "")
    return f"hook {hook.name}: POST {path}, scheme {hook.scheme}, {secrets}, {', '.join(selects)}"


def _token_line(token: Token) -> str:
    covers = "" if token.admin else f" of {', '.join(sorted(token.sites))}"
    ends = "" if token.expires is None else f", expires {utc(token.expires)}"
    return f"token {token.name}: {token.role}{covers}{ends}"


def _studio_line(studio: StudioSection) -> str:
    asked = ["whether it is publishing"] if studio.token else []
    asked += ["whether it is the primary"] if studio.management_token else []
    asked += [f"who a caller is ({', '.join(sorted(studio.callers))} may sync)"] if studio.callers else []
    return f"studio: {studio.url}, asked {' and '.join(asked)}, answers within {studio.timeout:g} s"


def _schedule_text(interval: float) -> str:
    return f"each site is checked for drift every {interval:g} s" if interval else "off"


def _metrics_text(metrics: MetricsSection) -> str:
    return f"GET /metrics on {metrics.listen}" if metrics.address else "off"


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return what a configuration says as values for JSON, without secrets."""
    return {
        **settings.document.model_dump(mode="json", exclude={"hosts", "sites"}),
        "hosts": {name: asdict(host) for name, host in settings.hosts.items()},
        "sites": {site.id: _site_dict(site) for site in _configured(settings.sites)},
        "warnings": list(settings.warnings),
    }


def _site_dict(site: Site) -> dict[str, Any]:
    return {
        "repository": asdict(site.repository),
        "live": site.live,
        "environments": {
            e.name: {
                "legs": [{"repository": str(leg), "branch": leg.branch} for leg in e.legs],
                "policy": str(e.policy),
                "follow": e.follow,
            }
            for e in site.environments.values()
        },
    }
