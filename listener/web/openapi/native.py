"""The native API: sites, environments, runs."""

from http import HTTPStatus

from listener.runs import State
from listener.web.openapi.operations import ANY_TIME, LIMIT, Answer, Operation, Parameter, answered, problems
from listener.web.openapi.schemas import DryRun, History, HoldBody, RunView, StandingRun
from listener.web.openapi.standings import Held, Overview, Released, SiteView, SyncAnswer
from listener.web.openapi.studio import ACCEPT, PREFER
from listener.web.protocol import EVENTS, NDJSON

_ONE = "/api/v1/sites/{site}/environments/{environment}"
_RUN_HEADERS = ("X-Run-Id", "Location", "Vary", "Preference-Applied")

_ASKED = problems(HTTPStatus.UNAUTHORIZED, *ANY_TIME)
_NAMED = (*problems(HTTPStatus.NOT_FOUND), *_ASKED)
_TOLD = (
    *problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
    *_NAMED,
)
_DONE_TO_A_RUN = (*problems(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT), *_NAMED)
_GOES_ON = answered(RunView, "The run goes on.", HTTPStatus.ACCEPTED, headers=_RUN_HEADERS)

_HISTORY = tuple(
    Parameter(name, "query", what, schema)
    for name, what, schema in (
        ("site", "only the runs of this site", {"type": "string"}),
        ("environment", "only those of this environment", {"type": "string"}),
        ("state", "only those in this state", {"type": "string", "enum": [state.value for state in State]}),
        ("before", "only those before the run of this id: the next page", {"type": "string"}),
        LIMIT,
    )
)
_LOG = (
    ACCEPT,
    Parameter(
        "Last-Event-ID",
        "header",
        "the line after which to go on",
        {"type": "integer", "minimum": 0, "maximum": 2**31},
    ),
    Parameter("after", "query", "the same", {"type": "integer", "minimum": 0, "maximum": 2**31}),
    Parameter("follow", "query", "whether to wait for the run's end", {"type": "boolean", "default": True}),
)

OPERATIONS = (
    Operation(
        "GET",
        "/api/v1/sites",
        "list_sites",
        "Sites",
        "Every site that the caller may see, with the drift of its environments.",
        (answered(Overview, "The sites."), *_ASKED),
    ),
    Operation(
        "GET",
        "/api/v1/sites/{site}",
        "show_site",
        "Sites",
        "One site, with the drift of its environments.",
        (answered(SiteView, "The site."), *_NAMED),
    ),
    Operation(
        "POST",
        f"{_ONE}/sync",
        "sync",
        "Sites",
        "Start a run for one environment, or tell what one would do.",
        (
            answered(SyncAnswer, "The run has ended; or what it would do.", headers=_RUN_HEADERS),
            _GOES_ON,
            *problems(HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY),
            *_TOLD,
        ),
        body=DryRun,
        body_required=False,
        parameters=(PREFER,),
    ),
    Operation(
        "POST",
        f"{_ONE}/hold",
        "hold",
        "Sites",
        "Freeze one environment.",
        (answered(Held, "It is on hold."), *_TOLD),
        body=HoldBody,
    ),
    Operation(
        "POST",
        f"{_ONE}/release",
        "release",
        "Sites",
        "Let one environment go; one that follows live catches up.",
        (answered(Released, "It is not on hold."), *_NAMED),
    ),
    Operation(
        "GET",
        "/api/v1/runs",
        "list_runs",
        "Runs",
        "A page of the history, newest first.",
        (answered(History, "The page."), *problems(HTTPStatus.BAD_REQUEST), *_NAMED),
        parameters=_HISTORY,
    ),
    Operation(
        "GET",
        "/api/v1/runs/{run}",
        "show_run",
        "Runs",
        "One run, who asked for it, and where it stands in the queue.",
        (answered(StandingRun, "The run."), *_NAMED),
    ),
    Operation(
        "GET",
        "/api/v1/runs/{run}/log",
        "watch_run",
        "Runs",
        "A run's log, live until the run ends: a JSON object a line, or server-sent events.",
        (
            Answer(HTTPStatus.OK, "The log.", {NDJSON: None, EVENTS: None}, ("X-Run-Id",)),
            Answer(HTTPStatus.NO_CONTENT, "The run has ended, and everything was read.", {}),
            *problems(HTTPStatus.BAD_REQUEST),
            *_NAMED,
        ),
        parameters=_LOG,
    ),
    Operation(
        "POST",
        "/api/v1/runs/{run}/cancel",
        "cancel_run",
        "Runs",
        "End a run whose branch has not moved.",
        (answered(RunView, "It is cancelled."), *_DONE_TO_A_RUN),
    ),
    Operation(
        "POST",
        "/api/v1/runs/{run}/retry",
        "retry_run",
        "Runs",
        "Start a new run in the place of one that has failed or was cancelled.",
        (
            answered(RunView, "The new run has ended.", headers=_RUN_HEADERS),
            _GOES_ON,
            *_DONE_TO_A_RUN,
        ),
    ),
    Operation(
        "POST",
        "/api/v1/runs/{run}/rollback",
        "roll_back_run",
        "Runs",
        "Take back what a run did, or tell what that would do.",
        (
            answered(SyncAnswer, "The rollback has ended; or what it would do.", headers=_RUN_HEADERS),
            _GOES_ON,
            *problems(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY),
            *_TOLD,
        ),
        body=DryRun,
        body_required=False,
    ),
)
