# The host's half of the dialogue: POSIX sh, loaded once into a long-lived shell and then spoken to.
#
# A request is one line, `ss_call TOKEN FUNCTION ARGUMENT…`; its reply is what the function prints, closed on
# both streams by a line that starts with the token. A function runs in a subshell, so that nothing it sets or
# changes stays behind. An `error CODE TEXT` line is the last that a refusing function prints.
#
# Nothing here ever checks a branch out, holds index.lock, or locks live: Studio may start at any moment.

unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_NAMESPACE GIT_OBJECT_DIRECTORY \
	GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_PARAMETERS CDPATH ENV
LC_ALL=C
GIT_OPTIONAL_LOCKS=0
GIT_NO_REPLACE_OBJECTS=1
GIT_TERMINAL_PROMPT=0
export LC_ALL GIT_OPTIONAL_LOCKS GIT_NO_REPLACE_OBJECTS GIT_TERMINAL_PROMPT

# Fractions of a second where the tools know them.
case $(date +%s.%3N 2>/dev/null) in
'' | *[!0-9.]*) ss_clock=+%s ;;
*) ss_clock=+%s.%3N ;;
esac
case $(stat -c %.3Y / 2>/dev/null) in
'' | *[!0-9.]*) ss_mtime=%Y ;;
*) ss_mtime=%.3Y ;;
esac

ss_tab=$(printf '\t')
ss_format='%(refname)%09%(objectname)%09%(tree)%09%(symref)%09%(committeremail)%09%(worktreepath)'

ss_call() {
	ss_token=$1
	shift
	("$@") </dev/null
	printf '\n%s %s\n' "$ss_token" "$?"
	printf '\n%s\n' "$ss_token" >&2
}

ss_refuse() {
	printf 'error %s %s\n' "$1" "$2"
	exit 1
}

# Tell the process group, by which this shell can be ended from another session, and git's version.
ss_hello() {
	group=$$
	if read -r stat 2>/dev/null <"/proc/$$/stat"; then
		# shellcheck disable=SC2086 # the fields behind the command's name: state, parent, group
		set -- ${stat##*) }
		group=$3
	fi
	command -v git >/dev/null 2>&1 || ss_refuse git-unavailable "git is not installed, or not on the PATH of a login by ssh"
	printf 'hello %s %s\n' "$group" "$(git --version)"
}

# Refuse the directory that we are in, to which $1 has led, if the key may not look at it. An unrestricted one may look
# at any; gate.sh has its own.
ss_permit() {
	# shellcheck disable=SC2317 # it is reached where no gate follows
	:
}

# Enter the git directory of the repository at $1, which lies below $2 unless that is empty; set `bare` and `worktree`.
ss_enter() {
	cd -P "$1" 2>/dev/null || ss_refuse not-a-repository "there is no directory $1 that $(id -un) may enter"
	ss_permit "$1"
	bare=no
	worktree=$PWD
	if [ -d .git ]; then
		cd -P .git || exit 1
		ss_permit "$1"
	elif [ -f HEAD ] && [ -d objects ] && [ -d refs ]; then
		if [ "$(git config --file config --type bool core.bare)" = false ]; then
			worktree=${worktree%/*}
		else
			bare=yes
		fi
	else
		ss_refuse not-a-repository "$1 is no git repository"
	fi
	for part in . objects refs; do
		[ -O "$part" ] || ss_refuse wrong-owner "$1 belongs to $(stat -c %U "$part" 2>/dev/null), not to $(id -un)"
	done
	[ ! -f shallow ] || ss_refuse unsupported-repository "$1 is a shallow clone: complete it with git fetch --unshallow"
	[ ! -d reftable ] || ss_refuse unsupported-repository "$1 keeps its refs in a reftable, which Studio's publisher can't share"
	ss_within "$1" "$2"
	GIT_DIR=$PWD
	export GIT_DIR
}

# Refuse if $1, which is the directory that we are in, leads out of the folder $2 through a symbolic link, or has its
# refs or objects elsewhere.
ss_within() {
	[ -n "$2" ] || return 0
	root=$(cd -P "$2" && pwd -P) || ss_refuse not-a-repository "there is no directory $2 that $(id -un) may enter"
	case $PWD in "${root%/}"/*) ;; *) ss_refuse outside-root "$1 leads out of $2" ;; esac
	for part in commondir refs refs/heads objects; do
		[ ! -L "$part" ] || ss_refuse outside-root "$1 has its $part elsewhere"
	done
	[ ! -e commondir ] || ss_refuse outside-root "$1 has its refs and objects elsewhere (commondir)"
}

# Whether a process of that id lives and is a shell of ours: ids are used again.
ss_lives() {
	kill -0 "$1" 2>/dev/null || return 1
	[ -r "/proc/$1/cmdline" ] || return 0
	case $(tr '\0' ' ' <"/proc/$1/cmdline") in *sync-staging-*) return 0 ;; esac
	return 1
}

# Take away what a killed predecessor left: its HEAD.lock is known by being a link to its own file.
ss_tidy() {
	for own in sync-staging-HEAD.*; do
		[ -e "$own" ] || continue
		ss_lives "${own##*.}" && continue
		# Who renames it has it to itself.
		mv "$own" "$own.gone" 2>/dev/null || continue
		# shellcheck disable=SC3013 # dash, bash, ksh and busybox all know -ef
		[ "$own.gone" -ef HEAD.lock ] && rm -f HEAD.lock
		rm -f "$own.gone"
	done
}

# Set `seen` to all that must not change between deciding and applying, `refs` to the refs among it.
# `live` is empty where live lies in another repository.
ss_look() {
	read -r head <HEAD || [ -n "$head" ] || ss_refuse not-a-repository "$GIT_DIR/HEAD can't be read"
	refs=$(git for-each-ref --format="$ss_format" "refs/heads/${live:-$branch}" "refs/heads/$branch" 'refs/heads/*_in_progress' \
		"refs/heads/${live}_in_progress" "refs/heads/${branch}_in_progress") ||
		ss_refuse remote-step "git for-each-ref failed"
	seen="head $head"
	for lock in index.lock HEAD.lock; do
		[ -e "$lock" ] && seen="$seen
mark $lock"
	done
	seen="$seen
$refs"
}

# Set `tip` and `tree` of the branch, `live_tip` and `live_tree` of live, and `ours` if the tip is a forward commit.
ss_tips() {
	tip='' tree='' live_tip='' live_tree='' ours=no
	while IFS=$ss_tab read -r name commit its_tree rest; do
		case $name in
		"refs/heads/$branch")
			tip=$commit tree=$its_tree
			case $rest in *"<$1>"*) ours=yes ;; esac
			;;
		esac
		case $name in
		"refs/heads/$live") live_tip=$commit live_tree=$its_tree ;;
		esac
	done <<-END
		$refs
	END
}

# List the paths that differ between two commits, $3 of each kind at most, and count them all.
ss_differences() {
	# A few trees that hold each other can have more paths than any memory: git gets 1 GiB, and the list is not kept.
	# Git reads the index too, and would ask a program that the repository names what has changed in the work tree.
	{
		# shellcheck disable=SC3045 # dash, bash, ksh and busybox all know -d
		ulimit -d 1048576 2>/dev/null
		git -c core.quotePath=true -c core.fsmonitor= diff-tree -r --no-renames --name-status "$1" "$2" || echo failed
	} | awk -F '\t' -v most="$3" '
		$0 == "failed" { failed = 1; next }
		NF { kind = $1 == "A" || $1 == "D" ? $1 : "M"; if (++count[kind] <= most) print kind "\t" $2 }
		$2 ~ /[.]blob"?$/ { blobs++ }
		END {
			if (failed) exit 1
			print "counts", count["A"] + 0, count["M"] + 0, count["D"] + 0, blobs + 0
		}' || ss_refuse remote-step "git diff-tree failed"
}

# Count the pointers into a blob store in the tree of $1.
ss_blobs() {
	printf 'blobs %s\n' "$(git ls-tree -r --name-only "$1" | grep -c '[.]blob"*$')"
}

# ss_observe PATH ROOT LIVE BRANCH COMPARE EMAIL LISTED COUNTING TARGET: tell everything that a decision needs.
# COMPARE is `tree` or `commit`: what must be equal. EMAIL marks our own commits. LISTED bounds the listed paths
# of each kind. COUNTING is `yes` for the numbers of commits too, which no decision needs. TARGET is the commit to
# compare the branch to, empty for live's.
ss_observe() {
	live=$3 branch=$4
	ss_enter "$1" "$2"
	ss_tidy
	ss_look
	if [ -f logs/HEAD ]; then head_file=logs/HEAD; else head_file=HEAD; fi
	touched=$(stat -c "touched $ss_mtime" "$head_file" index FETCH_HEAD index.lock HEAD.lock \
		"refs/heads/${branch}_in_progress" "refs/heads/${live}_in_progress" 2>/dev/null)
	[ -n "$touched" ] || ss_refuse unsupported-repository "stat -c does not work here: nobody could tell when Studio was at work"
	printf 'now %s\nbare %s\nworktree %s\n%s\n' "$(date $ss_clock)" "$bare" "$worktree" "$touched"
	printf '%s\nseen\n' "$seen"
	ss_tips "$6"
	to=$live_tip to_tree=$live_tree
	if [ -n "$9" ]; then
		to=$9
		to_tree=$(git rev-parse --verify --quiet "$to^{tree}") || ss_refuse commit-gone "the commit $to is not in $1 any more"
		printf 'target %s %s\n' "$to" "$to_tree"
	fi
	[ -n "$to" ] && [ "$tip" != "$to" ] || return 0
	[ -n "$tip" ] || {
		ss_blobs "$to"
		return 0
	}
	[ "$tree" != "$to_tree" ] || [ "$5" = commit ] || return 0
	if [ "$ours" = no ] && [ -z "$9" ]; then
		git merge-base --is-ancestor "$tip" "$to"
		case $? in
		0) echo 'ancestor' ;;
		1) ;;
		*) ss_refuse remote-step "git merge-base failed" ;;
		esac
	fi
	[ "$8" = no ] || printf 'apart %s\n' "$(git rev-list --left-right --count "$tip...$to")"
	echo 'differences'
	ss_differences "$tip" "$to" "$7"
}

# ss_survey SEPARATOR (PATH ROOT LIVE BRANCH COMPARE EMAIL LISTED COUNTING TARGET)…: observe many, each in a subshell.
ss_survey() {
	separator=$1
	shift
	while [ $# -ge 9 ]; do
		(ss_observe "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8" "$9")
		printf '\n%s %s\n' "$separator" "$?"
		shift 9
	done
}

# ss_expire PATH ROOT BRANCH BEFORE: delete the backups of runs whose ids, which sort by time, are below BEFORE.
ss_expire() {
	ss_enter "$1" "$2"
	old=$(git for-each-ref --format='%(refname) %(objectname)' "refs/sync-staging/backup/$3" | awk -v before="$4" '
		{ run = $1; sub(".*/", "", run) }
		run < before { print "option no-deref\ndelete " $1 " " $2 }')
	[ -n "$old" ] || return 0
	printf '%s\n' "$old" | git update-ref --stdin || ss_refuse remote-step "git update-ref failed"
	printf '%s\n' "$old" | grep '^delete'
}

# ss_sites ROOT BEFORE AFTER REST ONE: tell the names between BEFORE and AFTER of what lies in ROOT and has a
# repository at REST within. ONE is the only name that is asked about, empty for all.
ss_sites() {
	cd -P "$1" 2>/dev/null || ss_refuse not-a-repository "there is no directory $1 that $(id -un) may enter"
	ss_permit "$1"
	# shellcheck disable=SC2027 # what stands between the quotes is the pattern
	for each in "$2"${5:-*}"$3"; do
		[ -d "$each$4/.git" ] || [ -f "$each$4/HEAD" ] || continue
		name=${each#"$2"}
		name=${name%"$3"}
		# What is no id of a site's may hold anything, a new line too; `..*` is also the folder above.
		case $name in '' | *[!a-z0-9_-]*) continue ;; esac
		printf 'site %s\n' "$name"
	done
}

# Detach HEAD from the branch at the commit that it is at, under HEAD's own lock: work tree and index stay as
# they are, and stay clean. The lock is a link to a file of ours, so that a later look knows it for ours.
ss_detach() {
	own=sync-staging-HEAD.$$
	if ! printf '%s\n' "$tip" >"$own"; then
		rm -f "$own"
		ss_refuse remote-step "can't write into $GIT_DIR"
	fi
	if ! ln "$own" HEAD.lock; then
		rm -f "$own"
		[ -e HEAD.lock ] || ss_refuse remote-step "can't make HEAD.lock in $GIT_DIR"
		echo 'busy HEAD.lock'
		return 1
	fi
	read -r now_head <HEAD
	publishing=no
	[ -n "$stale" ] || [ ! -e "refs/heads/${branch}_in_progress" ] || publishing=yes
	if [ "$now_head" != "ref: refs/heads/$branch" ] || [ "$publishing" = yes ]; then
		rm -f HEAD.lock "$own"
		echo 'changed'
		return 1
	fi
	mv -f HEAD.lock HEAD || ss_refuse remote-step "can't replace $GIT_DIR/HEAD"
	rm -f "$own"
	echo 'detached'
}

# ss_apply PATH ROOT LIVE BRANCH SEEN KIND TO STALE BACKUP INCOMING RUN DATE NAME EMAIL SUBJECT BODY: move the branch
# if all is still as seen. TO is the commit to go to, empty for live's; a forward commit takes its tree from there.
# STALE is the commit of a crashed publish's `<branch>_in_progress`, empty where there must be none. BACKUP is the
# ref that keeps the old commit, INCOMING the one that brought TO here, each empty for none.
ss_apply() {
	live=$3 branch=$4 kind=$6 to=$7 stale=$8 backup=$9 incoming=${10} run=${11}
	ss_enter "$1" "$2"
	ss_look
	if [ "$seen" != "$5" ]; then
		echo 'changed'
		return 0
	fi
	ss_tips "${14}"
	GIT_AUTHOR_NAME=${13} GIT_AUTHOR_EMAIL=${14} GIT_AUTHOR_DATE="${12} +0000"
	GIT_COMMITTER_NAME=${13} GIT_COMMITTER_EMAIL=${14} GIT_COMMITTER_DATE="${12} +0000"
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
	new=${to:-$live_tip}
	# To git, nothing and only zeros both mean: delete it.
	case $new in *[!0]*) ;; *) ss_refuse remote-step "there is no commit to move $branch to" ;; esac
	if [ "$kind" = forward-commit ]; then
		subject=${15} body=${16}
		set -- -p "$tip"
		# A rollback goes back to what the branch has had already: that is no second parent.
		[ -n "$to" ] || set -- "$@" -p "$live_tip"
		new=$(git -c i18n.commitEncoding=UTF-8 commit-tree "$new^{tree}" "$@" -m "$subject" -m "$body") ||
			ss_refuse remote-step "git commit-tree failed"
	fi
	if [ "$bare" = no ] && [ "$head" = "ref: refs/heads/$branch" ]; then
		ss_detach || return 0
	fi
	before=$refs
	if ! ss_transaction | git update-ref -m "sync-staging: run $run" --stdin; then
		ss_look
		[ "$refs" = "$before" ] && ss_refuse remote-step "git update-ref failed"
		echo 'changed'
		return 0
	fi
	ss_look
	printf 'new %s\n%s\n' "$new" "$seen"
}

ss_transaction() {
	printf 'option no-deref\nverify refs/heads/%s_in_progress %s\n' "$branch" "$stale"
	[ -z "$backup" ] || printf 'option no-deref\nupdate %s %s\n' "$backup" "$tip"
	if [ -n "$tip" ]; then
		printf 'option no-deref\nupdate refs/heads/%s %s %s\n' "$branch" "$new" "$tip"
	else
		printf 'option no-deref\ncreate refs/heads/%s %s\n' "$branch" "$new"
	fi
	[ -z "$incoming" ] || printf 'option no-deref\ndelete %s %s\n' "$incoming" "$to"
}
