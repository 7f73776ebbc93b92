# The gate of a restricted key. sshd runs it in place of the command that the client sent. It carries out requests of
# our dialogue, and nothing else.
#
#   sync-staging-shell [--branch NAME]… [--protect NAME]… FOLDER…
#
# FOLDER     the key may look at repositories in this folder only; a symbolic link does not lead out of it
# --branch   the key may move branches of these names only; without it, all but `live` and the protected ones
# --protect  the key never moves a branch of this name; it never moves one whose name ends in _in_progress either
#
# No code comes from the client. A request is text. Its fields are checked against the rules below before a function
# above is called.

key_branches='' key_protected='' key_folders=''
key_incoming=refs/sync-staging/incoming
# A push within a namespace can't reach a ref outside of it, but git still tells the client which commits are here.
key_namespace=sync-staging
key_newline='
'

key_main() {
	[ "$*" != --version ] || {
		printf 'sync-staging-shell %s\n' "$key_digest"
		exit 0
	}
	key_environment
	key_options "$@" >&2
	key_command "${SSH_ORIGINAL_COMMAND-}"
}

# Drop git's variables that a client may have sent (sshd's AcceptEnv): they could name another program or repository.
key_environment() {
	for key_name in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do
		case $key_name in
		GIT_OPTIONAL_LOCKS | GIT_NO_REPLACE_OBJECTS | GIT_TERMINAL_PROMPT) ;;
		*) unset "$key_name" ;;
		esac
	done
}

key_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--branch | --protect)
			key_is_branch "${2-}" || key_refuse "the key's line in authorized_keys has no branch after $1"
			case $1 in --branch) key_branches="$key_branches $2" ;; *) key_protected="$key_protected $2" ;; esac
			shift
			;;
		/?*) key_folders=${key_folders:+$key_folders$key_newline}${1%/} ;;
		*) key_refuse "the key's line in authorized_keys has $1, which is not the absolute path of a folder" ;;
		esac
		shift
	done
	[ -n "$key_folders" ] || key_refuse "the key's line in authorized_keys names no folder"
	[ -n "$key_branches" ] || key_protected="$key_protected live"
}

# Carry out the command that the session was opened with.
key_command() {
	case $1 in
	"sync-staging-dialogue $key_digest "*)
		key_name=${1#"sync-staging-dialogue $key_digest "}
		key_is_name "$key_name" || key_refuse_command "$1"
		ss_dialogue "$key_name"
		;;
	"sync-staging-dialogue "*)
		ss_refuse script-outdated "the sync-staging-shell on this host has another version than the listener" >&2
		;;
	"sync-staging-end "*" sync-staging-"*)
		key_group=${1#sync-staging-end } key_name=${1##* }
		key_group=${key_group%" $key_name"}
		key_is_number "$key_group" || key_refuse_command "$1"
		key_is_name "$key_name" || key_refuse_command "$1"
		[ "$key_group" -gt 1 ] || key_refuse_command "$1"
		ss_end "$key_group" "$key_name"
		;;
	"git-upload-pack '"*"'" | "git-receive-pack '"*"'")
		key_path=${1#*\'}
		key_unquote "${key_path%\'}" || key_refuse_command "$1"
		key_service "${1%%-pack *}" "$key_path"
		;;
	*) key_refuse_command "$1" ;;
	esac
}

# Set `key_path` to the text within the quotes: '\'' stands for a quote, '\!' for an exclamation mark.
key_unquote() {
	key_path='' key_rest=$1
	while :; do
		case $key_rest in
		*\'*)
			key_path=$key_path${key_rest%%\'*}
			key_rest=${key_rest#*\'}
			;;
		*)
			key_path=$key_path$key_rest
			return 0
			;;
		esac
		case $key_rest in
		"\\''"*) key_path="$key_path'" ;;
		"\\!'"*) key_path="$key_path!" ;;
		*) return 1 ;;
		esac
		key_rest=${key_rest#???}
	done
}

key_refuse_command() {
	key_log "the command: ${1:-a shell}"
	ss_refuse restricted-key "this key is bound to sync-staging-shell, which does not run this command" >&2
}

# Refuse a request that the key may not make. Each verb's rules check all of its fields.
ss_permit_request() {
	case $1 in
	hello) ;;
	observe) key_check_observe ;;
	sites) key_check_sites ;;
	expire) key_check_expire ;;
	apply) key_check_apply ;;
	*) key_malformed ;;
	esac
}

# What a look takes, and a move too.
key_check_observe() {
	key_check_place
	key_is_branch "$branch" || key_refuse "the branch has an invalid name"
	case $compare in tree | commit) ;; *) key_malformed ;; esac
	case $counting in yes | no) ;; *) key_malformed ;; esac
	[ -z "$listed" ] || key_is_number "$listed" || key_malformed
	[ -z "$room" ] || key_is_number "$room" || key_malformed
	[ -z "$target" ] || key_is_commit "$target" || key_refuse "the target is not a commit id"
	[ -z "$since" ] || key_is_commit "$since" || key_refuse "the commit to list from is not a commit id"
	[ -z "$run" ] || key_is_word "$run" || key_malformed
}

# Check the fields that name the repository: `path`, `root` and `live`.
key_check_place() {
	key_check_path "$path"
	[ -z "$root" ] || key_check_path "$root"
	[ -z "$live" ] || key_is_branch "$live" || key_refuse "live has an invalid name"
}

key_check_sites() {
	key_check_path "$root"
	for key_name in "$before" "$after" "$one"; do
		case $key_name in */* | *[[:cntrl:]]*) key_malformed ;; esac
	done
	case $one in *[!a-z0-9_-]*) key_malformed ;; esac
	case $rest/ in *[[:cntrl:]]* | */../* | */./* | [!/]*) key_malformed ;; esac
}

key_check_expire() {
	key_check_place
	key_check_movable "$branch"
	key_is_word "$before" || key_malformed
}

# `seen` is only compared, and `subject` and `body` may be any text.
key_check_apply() {
	key_check_observe
	key_check_movable "$branch"
	[ "$live" != "$branch" ] || key_refuse "the branch live can't be moved"
	case $counting/$kind/$quiet in
	no/create/ | no/fast-forward/ | no/forward-commit/ | no/reset/) ;;
	no/forward/*)
		key_is_number "$quiet" || key_malformed
		[ -z "$to$stale$backup$incoming$target" ] || key_malformed
		;;
	*) key_malformed ;;
	esac
	[ -z "$to" ] || key_is_commit "$to" || key_refuse "the new commit is not a commit id"
	[ -z "$stale" ] || key_is_commit "$stale" || key_refuse "the stale mark is not a commit id"
	[ -z "$backup" ] || key_is_backup "$backup" "$branch" || key_refuse "the backup is not one of $branch"
	[ -z "$incoming" ] || [ "$incoming" = "$key_incoming/$branch" ] || key_refuse "the incoming ref is not one of $branch"
	key_is_word "$run" || key_malformed
	key_is_number "$date" || key_malformed
	incoming=${incoming:+refs/namespaces/$key_namespace/$incoming}
}

key_malformed() {
	key_refuse "the request has missing or invalid fields"
}

# Refuse a path that is not below one of the key's folders, as it is written; ss_permit checks where it leads.
key_check_path() {
	case $1/ in
	[!/]* | *[[:cntrl:]]*) key_refuse "a path is not absolute, or has a control character" ;;
	*//* | */./* | */../*) key_refuse "$1 has //, /./ or /../ in it" ;;
	esac
	key_in_folder "$1" || key_refuse "$1 is not in one of this key's folders"
}

# Refuse unless the current directory, to which the path $1 has led, lies in one of the key's folders. In a repository,
# its parts must lie there too: a symbolic link in place of one would let the key read or write elsewhere.
ss_permit() {
	key_is_here || key_refuse "a symbolic link leads from $1 out of this key's folders"
	[ ! -d .git ] && [ -d objects ] || return 0
	[ ! -e commondir ] || key_refuse "$1 has its refs and objects elsewhere (commondir), which this key does not allow"
	for key_part in HEAD config objects refs refs/heads logs packed-refs index; do
		[ -L "$key_part" ] || continue
		(cd -P "$key_part" 2>/dev/null && key_is_here) ||
			key_refuse "$1 has a symbolic link in place of its $key_part, which leads out of this key's folders"
	done
}

key_is_here() {
	! key_in_folder "$PWD" || return 0
	while IFS= read -r key_folder; do
		key_folder=$(cd -P "$key_folder/" 2>/dev/null && pwd -P) || continue
		case $PWD/ in "${key_folder%/}"/*) return 0 ;; esac
	done <<-END
		$key_folders
	END
	return 1
}

key_in_folder() {
	while IFS= read -r key_folder; do
		case $1/ in "$key_folder"/*) return 0 ;; esac
	done <<-END
		$key_folders
	END
	return 1
}

key_check_movable() {
	key_is_branch "$1" || key_refuse "the branch has an invalid name"
	case $1 in *_in_progress) key_refuse "the branch $1 belongs to Studio" ;; esac
	case " $key_protected " in *" $1 "*) key_refuse "the branch $1 is protected from this key" ;; esac
	case " ${key_branches:-$1} " in *" $1 "*) ;; *) key_refuse "the branch $1 is not one that this key may move" ;; esac
}

# By the rules of git check-ref-format.
key_is_branch() {
	case $1 in
	'' | @ | -* | /* | .* | */ | *. | *.lock | *.lock/* | *..* | *//* | */.* | *@\{*) return 1 ;;
	*[[:cntrl:]\ ~^:?*\\[]*) return 1 ;;
	esac
}

key_is_backup() {
	case $1 in "refs/sync-staging/backup/$2/"*) key_is_word "${1#"refs/sync-staging/backup/$2/"}" ;; *) return 1 ;; esac
}

key_is_commit() {
	key_is_hex "$1" && { [ ${#1} -eq 40 ] || [ ${#1} -eq 64 ]; }
}

# The whole name of a shell: a part of one would match the shells of others.
key_is_name() {
	case $1 in sync-staging-????????????????) key_is_hex "${1#sync-staging-}" ;; *) return 1 ;; esac
}

key_is_hex() {
	case $1 in '' | *[!0-9a-f]*) return 1 ;; esac
}

key_is_number() {
	case $1 in '' | *[!0-9]* | ???????????*) return 1 ;; esac
}

key_is_word() {
	case $1 in '' | -* | *[!A-Za-z0-9-]*) return 1 ;; esac
}

# key_service git-upload|git-receive PATH: run one of git's own services. The key may read these objects in the dialogue
# too. A push arrives in our namespace, and only a request of the dialogue moves it to the branch.
key_service() {
	key_check_path "$2" >&2
	path=$2 root=''
	ss_enter >&2
	key_path=$GIT_DIR
	unset GIT_DIR
	case $1 in
	git-upload) exec git upload-pack --strict "$key_path" ;;
	git-receive)
		GIT_NAMESPACE=$key_namespace
		export GIT_NAMESPACE
		# Override the repository's settings: a push must not make it shallow, or pass options to its hooks.
		exec git -c receive.hideRefs=refs -c "receive.hideRefs=!$key_incoming" -c receive.shallowUpdate=false \
			-c receive.advertisePushOptions=false receive-pack "$key_path"
		;;
	esac
}

key_refuse() {
	key_log "$1"
	ss_refuse beyond-key "$1"
}

# Write to the system's log what was refused, and to which client.
key_log() {
	printf '%s refused to %s: %s' "$(id -un)" "${SSH_CONNECTION%% *}" "$1" | tr -c '[:print:]' '?' | cut -c 1-400 |
		logger -p auth.notice -t sync-staging-shell >/dev/null 2>&1 || :
}

key_main "$@"
