"""The one error tree.

Each error has a `code`, which programs match on. `permanent` means that a retry can't help: a person has to
change something, or the request has to be another one. The message says what went wrong, the `remedy` what to
do. One table decides which HTTP status an error has (`listener.web.replies`).
"""

from collections.abc import Sequence
from typing import ClassVar


class ListenerError(Exception):
    """The listener failed."""

    code: ClassVar[str] = "internal"
    permanent: bool = True
    default_remedy: ClassVar[str] = ""
    again_in: float | None = None
    """Seconds until the next try, for errors that are not failures: only the moment was wrong."""

    def __init__(self, message: str = "", *, remedy: str = "", reason: str = "") -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.remedy = remedy or self.default_remedy
        self.reason = reason
        """Why, for the log and for admins; the caller may get less detail."""
        self.credential = ""
        """The kind and name of the caller's credential, once it is known."""
        self.guess = False
        """Whether the caller showed a wrong secret. The answer is delayed, to make guessing slow."""
        super().__init__(self.message)


class ConfigurationError(ListenerError):
    """The configuration can't be used."""

    code = "configuration"


# Errors of a request.


class RequestError(ListenerError):
    """The request can't be answered."""

    code = "bad-request"


class BadRequestError(RequestError):
    """Bad Request"""  # noqa: D400 (Studio's own words)


class InvalidParametersError(RequestError):
    """Invalid parameter(s)."""

    code = "invalid-parameters"

    def __init__(self, *names: str) -> None:
        super().__init__(f"Invalid parameter(s): [{', '.join(names)}]")


class UnauthorizedError(RequestError):
    """The credential is missing, or it does not cover this request."""

    code = "unauthorized"
    challenge: ClassVar[str] = "Bearer"


class ForbiddenError(RequestError):
    """The credential's role does not allow this."""

    code = "forbidden"


class NotFoundError(RequestError):
    """Not found."""

    code = "not-found"


class MethodNotAllowedError(RequestError):
    """This route accepts other methods only."""

    code = "method-not-allowed"

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"This route accepts only {' and '.join(allowed)}.")


class SiteNotFoundError(NotFoundError):
    """Site not found"""  # noqa: D400 (Studio's own words)

    code = "site-not-found"


class EnvironmentNotFoundError(NotFoundError):
    """Environment not found"""  # noqa: D400 (Studio's own words)

    code = "environment-not-found"


class HookNotFoundError(NotFoundError):
    """No such hook."""

    code = "hook-not-found"


class RunNotFoundError(NotFoundError):
    """No such run."""

    code = "run-not-found"


class DeliveryNotFoundError(NotFoundError):
    """No such delivery."""

    code = "delivery-not-found"


class ConflictError(RequestError):
    """The current state does not allow this."""

    code = "conflict"


class EventsGoneError(RequestError):
    """The events after this one are not kept any more."""

    code = "events-gone"
    default_remedy = "follow again with after=0, from the oldest event that is kept, or without it, from now"


class BodyTooLargeError(RequestError):
    """The body is larger than this endpoint accepts."""

    code = "body-too-large"


class BodyTooSlowError(RequestError):
    """The body did not arrive in time."""

    code = "body-too-slow"


class UnsupportedMediaError(RequestError):
    """This endpoint does not accept the body's content type or encoding."""

    code = "unsupported-media"


class CompressedBodyError(UnsupportedMediaError):
    """Compressed bodies are not accepted."""

    default_remedy = "send the body uncompressed"


class TooManyRefusalsError(RequestError):
    """Too many requests from this address were refused."""

    code = "too-many-refusals"

    def __init__(self, message: str = "", *, again_in: float) -> None:
        super().__init__(message)
        self.again_in = again_in


class NoRoomError(RequestError):
    """Too many large bodies arrive at once; there is no memory for this one."""

    code = "no-room"
    permanent = False


class SignatureRejectedError(RequestError):
    """The delivery's signature is not valid."""

    code = "signature-rejected"

    def __init__(self, message: str = "", *, challenge: str = "") -> None:
        super().__init__(message)
        self.challenge = challenge
        """The WWW-Authenticate header of the answer; empty for none."""


class MalformedDeliveryError(RequestError):
    """The signature is valid, but the payload is not what the sender's documentation describes."""

    code = "malformed-delivery"


# Errors of the store.


class StoreError(ListenerError):
    """The store failed."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The store does not answer; nothing was accepted."""

    code = "store-unavailable"
    permanent = False


class StoreLockedError(StoreError):
    """Another listener has the store open."""

    code = "store-locked"


class StoreTooNewError(StoreError):
    """The store was written by a newer version of this program."""

    code = "store-too-new"


class StoreMovedError(StoreError):
    """The store was moved to another database, and its queue with it."""

    code = "store-moved"


class FencedError(StoreError):
    """This worker does not own the run any more; nothing was written."""

    code = "fenced"


# Errors that make a run fail.


class SyncError(ListenerError):
    """The sync failed."""

    code = "sync"
    permanent = False


class BusyError(SyncError):
    """Studio is publishing into the repository."""

    code = "busy"

    def __init__(self, message: str = "", *, again_in: float) -> None:
        super().__init__(message)
        self.again_in = again_in


class HandedBackError(SyncError):
    """The listener is stopping; the run goes back to the queue."""

    code = "handed-back"
    again_in = 0.0


class HostUnreachableError(SyncError):
    """The host does not answer."""

    code = "host-unreachable"
    default_remedy = "check the host's address and port, its firewall, and that its sshd runs"


class AgentUnavailableError(SyncError):
    """The ssh agent does not answer, or holds no key."""

    code = "agent-unavailable"
    default_remedy = "start the agent that ssh.agent names, and load a key into it with ssh-add"


class ConnectionLostError(SyncError):
    """The connection to the host was lost in the middle of a step."""

    code = "connection-lost"


class SessionRefusedError(ConnectionLostError):
    """The host refuses another session; nothing was started."""

    default_remedy = "raise MaxSessions in the host's sshd_config (the default is 10)"


class HostStalledError(SyncError):
    """A process that the listener started on the host hangs; nothing else is started beside it."""

    code = "host-stalled"
    default_remedy = "find out what the process waits for, most often a hanging disk or network file system"
    again_in = 2.0


class StepTimedOutError(SyncError):
    """A step on the host took longer than its limit and was ended."""

    code = "step-timed-out"
    default_remedy = "find out what makes git slow on the host, or raise sync.step_timeout"


class RemoteStepError(SyncError):
    """A step failed on the host."""

    code = "remote-step"


class TransferError(RemoteStepError):
    """Objects could not be copied from one host to the other."""

    code = "transfer"


class DiskFullError(RemoteStepError):
    """The host's disk is full."""

    code = "disk-full"
    default_remedy = "free space on the host; the sync is retried automatically"


class ReadOnlyError(RemoteStepError):
    """The repository is not writable."""

    code = "read-only"
    default_remedy = "mount its file system read-write, and give the user that logs in write permission"


class RefLockedError(RemoteStepError):
    """Another process holds a lock on one of the refs."""

    code = "ref-locked"
    default_remedy = "if no git process runs in the repository, delete the .lock file that the message names"


class CacheError(SyncError):
    """The listener's own object cache can't be used."""

    code = "cache"
    default_remedy = "make sync.cache writable for the listener's user, and free space on its disk"


class LegsFailedError(SyncError):
    """Some of the environment's repositories could not be made equal to live."""

    code = "legs-failed"
    default_remedy = "see the error of each repository"

    def __init__(self, message: str, errors: Sequence[SyncError]) -> None:
        super().__init__(message)
        self.permanent = all(error.permanent for error in errors)
        passing = [error.again_in for error in errors if not error.permanent]
        if passing and None not in passing:
            self.again_in = min(filter(None, passing), default=0.0)


class BranchMovedError(SyncError):
    """The branches kept moving while the sync was making them equal."""

    code = "branch-moved"


class StudioUnavailableError(SyncError):
    """Studio does not answer, or its answer is not understood."""

    code = "studio-unavailable"
    default_remedy = "check studio.url, that Studio runs, and that this machine can reach it"


class NotPrimaryError(SyncError):
    """This Studio is a replica; only its cluster's primary may be written to."""

    code = "not-primary"
    default_remedy = "set hosts.*.address and studio.url to the cluster's primary"


class RefusedError(SyncError):
    """The sync is refused until something is changed."""

    code = "refused"
    permanent = True


class CancelledRunError(RefusedError):
    """Somebody cancelled the run."""

    code = "cancelled"


class HostKeyRejectedError(RefusedError):
    """The host's key is not the one in known_hosts."""

    code = "host-key-rejected"
    default_remedy = (
        "if the host was reinstalled, replace its line in the known_hosts file; "
        "if not, somebody may intercept the connection"
    )


class LoginRefusedError(RefusedError):
    """The host does not accept this key."""

    code = "login-refused"
    default_remedy = (
        "add the public key of ssh.identity to the user's authorized_keys on the host; "
        "if it is there already, sshd's log on the host says why (a locked account, file permissions)"
    )


class IdentityUnusableError(RefusedError):
    """The SSH key or the known_hosts file can't be read."""

    code = "identity-unusable"


class SshConfigUnusableError(RefusedError):
    """The OpenSSH configuration that ssh.config names can't be used."""

    code = "ssh-config-unusable"
    default_remedy = "correct the file that ssh.config names; sync-staging check-config checks it"


class ForwardingRefusedError(RefusedError):
    """The jump host does not forward connections to the host behind it."""

    code = "forwarding-refused"
    default_remedy = (
        "on the jump host, allow forwarding for this user: AllowTcpForwarding and PermitOpen in its "
        "sshd_config, and remove restrict and no-port-forwarding from the key's line in authorized_keys"
    )


class ShellUnavailableError(RefusedError):
    """The account on the host can't run sh."""

    code = "shell-unavailable"
    default_remedy = (
        "give the account a POSIX shell; if it may only run git (git-shell), set hosts.*.access to git"
    )


class RestrictedKeyError(ShellUnavailableError):
    """The key is restricted to sync-staging-shell on its host."""

    code = "restricted-key"
    default_remedy = "set hosts.*.access to restricted"


class ScriptOutdatedError(RefusedError):
    """The sync-staging-shell on the host has another version than the listener."""

    code = "script-outdated"
    default_remedy = "install it again on the host: sync-staging host script prints it"


class BeyondKeyError(RefusedError):
    """The restricted key may not do this on its host."""

    code = "beyond-key"
    default_remedy = (
        "correct the key's line in authorized_keys on the host: sync-staging host key prints the right one "
        "for this configuration; a symbolic link must not lead out of the folders that the line names"
    )


class WrongOwnerError(RefusedError):
    """The repository belongs to another user than the one that logged in."""

    code = "wrong-owner"
    default_remedy = (
        "log in as the repository's owner (hosts.*.user): "
        "objects of another owner break Studio's next publish"
    )


class NotARepositoryError(RefusedError):
    """There is no git repository at the configured path."""

    code = "not-a-repository"
    default_remedy = "check sites.*.repository.path, and that the site has been published once"


class UnsupportedRepositoryError(RefusedError):
    """This kind of repository can't be synced safely."""

    code = "unsupported-repository"


class GitUnavailableError(RefusedError):
    """The host has no git, or its git is too old."""

    code = "git-unavailable"
    default_remedy = "install git 2.25 or later on the host"


class OutsideRootError(RefusedError):
    """The repository's path leads out of the folder of its site's pattern."""

    code = "outside-root"
    default_remedy = (
        "replace the symbolic link on the host with the folder that it points to, "
        "or configure the site by its id"
    )


class LiveMissingError(RefusedError):
    """The live branch does not exist: the site was never published."""

    code = "live-missing"
    default_remedy = "publish the site to live once"


class DivergedError(RefusedError):
    """The environment's branch has diverged from live, and its policy only fast-forwards."""

    code = "diverged"
    default_remedy = "set the environment's policy to forward or reset"


class SymbolicBranchError(RefusedError):
    """The environment's branch is symbolic: moving it would move another branch."""

    code = "symbolic-branch"
    default_remedy = "replace the symbolic ref with a real branch"


class CheckedOutElsewhereError(RefusedError):
    """The environment's branch is checked out in another work tree."""

    code = "checked-out-elsewhere"
    default_remedy = (
        "remove that work tree (git worktree prune, if its folder does not exist any more), "
        "or check out another branch in it"
    )


class MovedSinceError(RefusedError):
    """The branch has moved since the run: there is nothing to roll back."""

    code = "moved-since"
    default_remedy = "sync-staging runs list shows what moved it; roll that run back first, or sync"


class UnexpectedMoveError(RefusedError):
    """The host has moved the branch in another way than the listener would have decided."""

    code = "unexpected-move"
    default_remedy = (
        "look at the branch, and roll the run back if it is not as it should be; report this with the run's "
        "log; until its next start, the listener looks at this environment before it moves it"
    )


class CommitGoneError(RefusedError):
    """The repository does not have the commit to roll back to any more."""

    code = "commit-gone"
    default_remedy = (
        "the listener keeps old commits only for sync.keep_backups; "
        "restore the repository from a backup of its host"
    )


class PushRefusedError(RefusedError):
    """The repository refuses the push."""

    code = "push-refused"
    default_remedy = "check the repository's hooks and its receive.* settings on the host"


class CheckedOutHereError(PushRefusedError):
    """The branch is checked out in the repository; it can be moved only by a shell on its host."""

    code = "checked-out-here"
    default_remedy = "give the account a shell and set access: sh, or check out another branch there"


class UnbornBranchError(RefusedError):
    """HEAD names the environment's branch, but the branch does not exist."""

    code = "unborn-branch"
    default_remedy = "publish to the environment once, or check out another branch in the repository"


class StaleLockError(RefusedError):
    """A process that was killed left a lock file behind."""

    code = "stale-lock"
    default_remedy = (
        "make sure that no git process runs in the repository, "
        "then delete the lock file that the message names"
    )


class BrokenRefError(RefusedError):
    """The file of a branch does not hold a commit."""

    code = "broken-ref"
    default_remedy = (
        "find the branch's last commit in its reflog (logs/) and write it into the file; "
        "if the file is a mark (_in_progress) and nobody publishes, delete it"
    )


class StudioRefusedError(RefusedError):
    """Studio refuses to answer this listener."""

    code = "studio-refused"


class UnknownToStudioError(RefusedError):
    """Studio does not know the site."""

    code = "unknown-to-studio"
    default_remedy = "check the site's id, and that studio.url is the Studio that publishes the site"


class OnHoldError(RefusedError):
    """The environment is on hold."""

    code = "on-hold"
    default_remedy = "release the environment first"


class UnknownTargetError(RefusedError):
    """The site or environment is not in the configuration any more."""

    code = "unknown-target"
