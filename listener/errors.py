"""The one error tree.

Each error has a `code`, which programs match on, and knows whether it is `permanent`: trying the same thing
again can't help, only a person or another request can. Its text says what was wrong; its `remedy` what to do.
How an error is told to an HTTP client is decided in one table (`listener.web.replies`).
"""

from collections.abc import Sequence
from typing import ClassVar


class ListenerError(Exception):
    """What this program can say went wrong."""

    code: ClassVar[str] = "internal"
    permanent: bool = True
    default_remedy: ClassVar[str] = ""
    again_in: float | None = None
    """Seconds until it is worth another look, where nothing failed and only the moment was wrong."""

    def __init__(self, message: str = "", *, remedy: str = "", reason: str = "") -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.remedy = remedy or self.default_remedy
        self.reason = reason
        """Why, for the log and for an admin, where whoever asked is told less."""
        self.credential = ""
        """The kind and name of the credential that it was asked with, once that is known."""
        self.guess = False
        """Whether a wrong secret was shown: its answer waits, so that guessing is slow."""
        super().__init__(self.message)


class ConfigurationError(ListenerError):
    """The configuration can't be used."""

    code = "configuration"


# What a request may get wrong.


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
    """No credential, or one that does not cover what was asked for."""

    code = "unauthorized"
    challenge: ClassVar[str] = "Bearer"


class ForbiddenError(RequestError):
    """The credential's role does not allow this."""

    code = "forbidden"


class NotFoundError(RequestError):
    """No such thing."""

    code = "not-found"


class MethodNotAllowedError(RequestError):
    """The route takes other methods."""

    code = "method-not-allowed"

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"The route takes {' and '.join(allowed)} alone.")


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
    """The state of things does not allow this now."""

    code = "conflict"


class BodyTooLargeError(RequestError):
    """The body is larger than this endpoint takes."""

    code = "body-too-large"


class BodyTooSlowError(RequestError):
    """The body did not arrive in time."""

    code = "body-too-slow"


class UnsupportedMediaError(RequestError):
    """The body's type or encoding is not one that this endpoint reads."""

    code = "unsupported-media"


class CompressedBodyError(UnsupportedMediaError):
    """Compressed bodies are not read."""

    default_remedy = "send the body as it is"


class TooManyRefusalsError(RequestError):
    """Too many requests from this address were refused."""

    code = "too-many-refusals"

    def __init__(self, message: str = "", *, again_in: float) -> None:
        super().__init__(message)
        self.again_in = again_in


class NoRoomError(RequestError):
    """So much arrives at once that there was no room for the body."""

    code = "no-room"
    permanent = False


class SignatureRejectedError(RequestError):
    """The delivery does not carry a good signature."""

    code = "signature-rejected"

    def __init__(self, message: str = "", *, challenge: str = "") -> None:
        super().__init__(message)
        self.challenge = challenge
        """What the answer asks for in WWW-Authenticate; empty for nothing."""


class MalformedDeliveryError(RequestError):
    """The delivery is signed well but does not say what its sender's documentation promises."""

    code = "malformed-delivery"


# What the store may say.


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
    """The run is not this worker's any more; what it wanted to write was not written."""

    code = "fenced"


# What makes a run fail.


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
    """The listener stops; the run goes back to the queue."""

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
    """The host opens no further session; nothing has started."""

    default_remedy = "allow more in the host's sshd_config (MaxSessions; 10 unless changed)"


class HostStalledError(SyncError):
    """A process of ours on the host does not go on, and nothing else may be started beside it."""

    code = "host-stalled"
    default_remedy = "see what the process waits for: most often a disk or a network file system that hangs"
    again_in = 2.0


class StepTimedOutError(SyncError):
    """A step on the host took longer than its limit and was ended."""

    code = "step-timed-out"
    default_remedy = "see what slows git down on the host, or raise sync.step_timeout"


class RemoteStepError(SyncError):
    """A step failed on the host."""

    code = "remote-step"


class TransferError(RemoteStepError):
    """Objects could not be brought from one host to the other."""

    code = "transfer"


class DiskFullError(RemoteStepError):
    """The host's disk is full."""

    code = "disk-full"
    default_remedy = "free space on the host; the sync is tried again by itself"


class ReadOnlyError(RemoteStepError):
    """The repository can't be written to."""

    code = "read-only"
    default_remedy = "mount its file system for writing, and let the user that logs in write to it"


class RefLockedError(RemoteStepError):
    """A lock on one of the refs is held."""

    code = "ref-locked"
    default_remedy = "if no git process runs in the repository, delete the .lock file that the message names"


class CacheError(SyncError):
    """The listener's own cache of objects can't be used."""

    code = "cache"
    default_remedy = "give sync.cache to the listener's user, and room on its disk"


class LegsFailedError(SyncError):
    """Some of the environment's repositories could not be made equal to live."""

    code = "legs-failed"
    default_remedy = "see each repository's own error"

    def __init__(self, message: str, errors: Sequence[SyncError]) -> None:
        super().__init__(message)
        self.permanent = all(error.permanent for error in errors)
        passing = [error.again_in for error in errors if not error.permanent]
        if passing and None not in passing:
            self.again_in = min(filter(None, passing), default=0.0)


class BranchMovedError(SyncError):
    """The branches kept moving while they were being made equal."""

    code = "branch-moved"


class StudioUnavailableError(SyncError):
    """Studio does not answer, or not what was asked."""

    code = "studio-unavailable"
    default_remedy = "check studio.url, that Studio runs, and that this machine reaches it"


class NotPrimaryError(SyncError):
    """The Studio that was asked is a replica: only its cluster's primary may be written to."""

    code = "not-primary"
    default_remedy = "point hosts.*.address at the cluster's primary, and studio.url too"


class RefusedError(SyncError):
    """The sync is refused for as long as things stay as they are."""

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
        "if not, somebody may be between you and it"
    )


class LoginRefusedError(RefusedError):
    """The host does not let this key log in."""

    code = "login-refused"
    default_remedy = (
        "add the public half of ssh.identity to the user's authorized_keys on the host; "
        "if it is there already, sshd's own log on the host says why (a locked account, file modes)"
    )


class IdentityUnusableError(RefusedError):
    """The SSH key or the known_hosts file can't be read."""

    code = "identity-unusable"


class SshConfigUnusableError(RefusedError):
    """The OpenSSH configuration that ssh.config names can't be used."""

    code = "ssh-config-unusable"
    default_remedy = "correct the file that ssh.config names; sync-staging check-config tries it"


class ForwardingRefusedError(RefusedError):
    """The jump host does not forward connections to the host behind it."""

    code = "forwarding-refused"
    default_remedy = (
        "on the jump host, allow it for this user: AllowTcpForwarding and PermitOpen in its sshd_config, "
        "and no restrict or no-port-forwarding at the key in authorized_keys"
    )


class ShellUnavailableError(RefusedError):
    """The account on the host does not run sh."""

    code = "shell-unavailable"
    default_remedy = (
        "give the account a POSIX shell; if it runs git's own services (git-shell), set hosts.*.access to git"
    )


class RestrictedKeyError(ShellUnavailableError):
    """The key is bound to sync-staging-shell on its host, and runs nothing else."""

    code = "restricted-key"
    default_remedy = "set hosts.*.access to restricted"


class ScriptOutdatedError(RefusedError):
    """The sync-staging-shell on the host is another version than the listener's."""

    code = "script-outdated"
    default_remedy = "install it anew on the host: sync-staging host script prints it"


class BeyondKeyError(RefusedError):
    """The restricted key may not do this on its host."""

    code = "beyond-key"
    default_remedy = (
        "see the key's line in authorized_keys on the host: sync-staging host key prints one for this "
        "configuration; a repository that a symbolic link leads to needs a folder of its own there"
    )


class WrongOwnerError(RefusedError):
    """The repository belongs to another user than the one that logged in."""

    code = "wrong-owner"
    default_remedy = (
        "log in as the repository's owner (hosts.*.user): foreign objects break Studio's next publish"
    )


class NotARepositoryError(RefusedError):
    """There is no git repository at the configured path."""

    code = "not-a-repository"
    default_remedy = "check sites.*.repository.path, and that the site has been published once"


class UnsupportedRepositoryError(RefusedError):
    """The repository is of a kind that can't be synced safely."""

    code = "unsupported-repository"


class GitUnavailableError(RefusedError):
    """The host has no git, or one that is too old."""

    code = "git-unavailable"
    default_remedy = "install git 2.25 or later on the host"


class OutsideRootError(RefusedError):
    """The repository's path leads out of the folder that its site's pattern names."""

    code = "outside-root"
    default_remedy = (
        "replace the symbolic link on the host by what it points to, or configure the site by its id"
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
    default_remedy = "replace the symbolic ref by a real branch"


class CheckedOutElsewhereError(RefusedError):
    """The environment's branch is checked out in another work tree."""

    code = "checked-out-elsewhere"
    default_remedy = (
        "remove that work tree (git worktree prune, where its folder is gone already), "
        "or check out something else in it"
    )


class MovedSinceError(RefusedError):
    """The branch has moved since the run: there is nothing to roll back."""

    code = "moved-since"
    default_remedy = "see runs list for what moved it; roll that run back first, or sync"


class CommitGoneError(RefusedError):
    """The commit to go back to is not in the repository any more."""

    code = "commit-gone"
    default_remedy = (
        "a backup is kept for sync.keep_backups; restore the repository from a backup of its host"
    )


class PushRefusedError(RefusedError):
    """The repository refuses the push by a rule of its own."""

    code = "push-refused"
    default_remedy = "see the repository's hooks and receive.* settings on its host"


class CheckedOutHereError(PushRefusedError):
    """The branch is checked out in the repository, and only a shell on its host could move it."""

    code = "checked-out-here"
    default_remedy = "give the account a shell and set access: sh, or check another branch out there"


class UnbornBranchError(RefusedError):
    """HEAD names the environment's branch, which does not exist, and nobody is making it."""

    code = "unborn-branch"
    default_remedy = "publish to the environment once, or check another branch out in the repository"


class StaleLockError(RefusedError):
    """A process that was killed left a lock behind, which nobody else takes away."""

    code = "stale-lock"
    default_remedy = (
        "make sure that no git process runs in the repository, then delete the lock that the message names"
    )


class BrokenRefError(RefusedError):
    """The file of a branch does not hold a commit."""

    code = "broken-ref"
    default_remedy = (
        "see the branch's reflog in logs/ for its last commit and write that into the file; "
        "delete the file if it is a mark (_in_progress) and nobody publishes"
    )


class StudioRefusedError(RefusedError):
    """Studio does not answer this question to this listener."""

    code = "studio-refused"


class UnknownToStudioError(RefusedError):
    """Studio does not know the site."""

    code = "unknown-to-studio"
    default_remedy = "check the site's id, and that studio.url is the Studio that publishes it"


class OnHoldError(RefusedError):
    """The environment is on hold."""

    code = "on-hold"
    default_remedy = "release the environment first"


class UnknownTargetError(RefusedError):
    """The site or environment is not in the configuration any more."""

    code = "unknown-target"
