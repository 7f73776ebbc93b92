# The script on the host: POSIX sh, loaded once into a long-lived shell, then asked by the listener.
#
# A request is lines of text: `TOKEN VERB`, then `NAME=TEXT` for each field that is not empty, `+TEXT` for each further
# line of the field before it, and a dot. A verb that takes several parts has a comma between them. The script never runs
# any of this text. The reply is what the verb's function prints. It ends on both streams with a line that starts with
# the token. Each request is answered in a subshell, so that it can't change the shell for the next one. A function that
# refuses prints `error CODE TEXT` as its last line.
#
# A request to move is followed by one more line: `TOKEN go` or `TOKEN stop`. So the listener can send the request while
# it still stores what is about to move. Without `go`, nothing moves. If the request has ended before, the line is ignored.
#
# The script never checks a branch out, never holds index.lock and never locks live: Studio may start at any moment.
#
# Which function sets which variable; later functions read them:
#
#   ss_read    the fields: path root live branch compare listed room counting target since seen quiet kind to stale backup
#              incoming run date subject body before after rest one separator; and `more`: whether another part follows
#   ss_enter   bare worktree GIT_DIR watched named
#   ss_head    head
#   ss_refs    refs
#   ss_tips    tip commit tree parents about at_head ours others, live_object live_commit live_tree live_parents live_about
#   ss_goal    goal goal_tree
#   ss_relate  ancestor
#   ss_choose  kind
#   ss_make    new new_tree
#   ss_files   files now
#   ss_self    pid start
#   ss_begin   own
#   ss_look    refs files now
#   ss_marked  marked_where marked_process marked_branch marked_new marked_body
#
# The fingerprint: what must not change between the look and the move. It is listed here and nowhere else. A reply says it
# line by line, and a request to move the branch says the same lines back, as the field `seen`:
#
#   head TEXT                   what HEAD names: `ref: refs/heads/...`, or a commit
#   ref NAME:OBJECT:COMMIT:TREE:PARENTS:TARGET:EMAIL:WORKTREE
#                               live, the branch, and the mark of a publish into each; those that exist
#   file PATH TIME SIZE INODE   when HEAD's reflog, the index, FETCH_HEAD, the locks and the marks were last written;
#                               those that exist
#
# `refs` holds the first two kinds, `files` the third.

unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_NAMESPACE GIT_OBJECT_DIRECTORY \
	GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_PARAMETERS CDPATH ENV
LC_ALL=C
GIT_OPTIONAL_LOCKS=0
GIT_NO_REPLACE_OBJECTS=1
GIT_TERMINAL_PROMPT=0
export LC_ALL GIT_OPTIONAL_LOCKS GIT_NO_REPLACE_OBJECTS GIT_TERMINAL_PROMPT

# Fractions of a second, if the tools support them.
case $(date +%s.%3N 2>/dev/null) in
'' | *[!0-9.]*) ss_clock=+%s ;;
*) ss_clock=+%s.%3N ;;
esac
case $(stat -c %.9Y / 2>/dev/null) in
'' | *[!0-9.]*) ss_mtime=%Y ;;
*) ss_mtime=%.9Y ;;
esac

ss_newline='
'
# This host and this boot: on another host, or before a boot, the id of a process means nothing.
ss_where=''
for ss_file in /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id; do
	read -r ss_line 2>/dev/null <"$ss_file" && ss_where="${ss_where:+$ss_where }$ss_line"
done
[ -n "$ss_where" ] || ss_where=$(uname -n)
# Files are young for so many seconds: then their times are compared with the clock of the file system.
ss_young=60
ss_question='path root live branch compare listed room counting target since run'
ss_order="$ss_question seen quiet kind to stale backup incoming date subject body"
# The committer of our commits. A later look recognises them by it.
ss_name=sync-staging
ss_email=sync-staging@localhost
# A branch may name a tag: its commit counts. Only the last two parts can contain a colon.
ss_commit='%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)'
ss_format="ref %(refname):%(objectname):$ss_commit:%(tree)%(*tree):%(parent)%(*parent):%(symref):%(committeremail)%(*committeremail):%(worktreepath)"

# ss_dialogue NAME: greet with that name, then answer requests until the input ends.
ss_dialogue() {
	(ss_hello) </dev/null
	ss_close "$1" "$?"
	while IFS=' ' read -r ss_token ss_verb; do
		case $ss_token in '' | *[!0-9a-f]*) exit 64 ;; esac
		case $ss_verb in go | stop) continue ;; esac
		(ss_answer "$ss_verb")
		ss_close "$ss_token" "$?"
	done
	exit 0
}

# Close a reply on both streams. After a malformed request the shell ends: the rest of it could be taken for a request.
ss_close() {
	printf '\n%s %s\n' "$1" "$2"
	printf '\n%s\n' "$1" >&2
	[ "$2" -ne 64 ] || exit 64
}

# ss_answer VERB: read what belongs to the request, and carry it out if the key may ask for it.
ss_answer() {
	case $1 in
	hello) ss_take hello '' && ss_hello ;;
	observe) ss_take observe "$ss_question" && ss_sync ;;
	survey) ss_survey ;;
	sites) ss_take sites 'root before after rest one' && ss_sites ;;
	expire) ss_take expire 'path root live branch before' && ss_expire ;;
	apply) ss_take apply "$ss_order" && ss_sync ;;
	*) ss_malformed "there is no such request" ;;
	esac
}

# ss_take VERB NAMES: read the fields of a request that has one part.
ss_take() {
	ss_read "$2"
	[ "$more" = no ] || ss_malformed "a request has too many parts"
	exec 3<&0 </dev/null
	ss_permit_request "$1"
}

# ss_read NAMES: set the fields of one part. Only these names are allowed; fields that are left out are empty.
ss_read() {
	path='' root='' live='' branch='' compare='' listed='' room='' counting='' target='' seen='' kind='' to='' stale=''
	since='' quiet=''
	backup='' incoming='' run='' date='' subject='' body='' before='' after='' rest='' one='' separator=''
	field='' text=''
	while IFS= read -r line; do
		case $line in
		+*) text=$text$ss_newline${line#+} ;;
		*)
			[ -z "$field" ] || ss_set
			case $line in
			.) more=no && return ;;
			,) more=yes && return ;;
			*=*) field=${line%%=*} text=${line#*=} ;;
			*) ss_malformed "a line of a request is not a field" ;;
			esac
			case " $1 " in *" $field "*) ;; *) ss_malformed "a request has a field that it does not take" ;; esac
			;;
		esac
	done
	ss_malformed "a request is not whole"
}

# Set the variable that `field` names to `text`. Each name is written out: a request must not set another variable.
ss_set() {
	case $field in
	path) path=$text ;;
	root) root=$text ;;
	live) live=$text ;;
	branch) branch=$text ;;
	compare) compare=$text ;;
	listed) listed=$text ;;
	room) room=$text ;;
	counting) counting=$text ;;
	target) target=$text ;;
	since) since=$text ;;
	quiet) quiet=$text ;;
	seen) seen=$text ;;
	kind) kind=$text ;;
	to) to=$text ;;
	stale) stale=$text ;;
	backup) backup=$text ;;
	incoming) incoming=$text ;;
	run) run=$text ;;
	date) date=$text ;;
	subject) subject=$text ;;
	body) body=$text ;;
	before) before=$text ;;
	after) after=$text ;;
	rest) rest=$text ;;
	one) one=$text ;;
	separator) separator=$text ;;
	*) ss_malformed "a request has an unknown field" ;;
	esac
}

ss_malformed() {
	printf 'error remote-step %s\n' "$1"
	exit 64
}

ss_refuse() {
	printf 'error %s %s\n' "$1" "$2"
	exit 1
}

# Refuse the request of the verb $1, whose fields are set, if the key may not make it. gate.sh replaces this function;
# without a gate every request is allowed.
ss_permit_request() {
	# shellcheck disable=SC2317 # it is reached where no gate follows
	:
}

# Print the process group, by which another session can end this shell, and git's version.
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

# Refuse the current directory, to which the path $1 has led, if the key may not look at it. gate.sh replaces this
# function; without a gate every directory is allowed.
ss_permit() {
	# shellcheck disable=SC2317 # it is reached where no gate follows
	:
}

# Enter the git directory of the repository at `path`, which lies below `root` unless that is empty.
ss_enter() {
	cd -P "$path" 2>/dev/null || ss_refuse not-a-repository "there is no directory $path that $(id -un) may enter"
	ss_permit "$path"
	bare=no
	if [ -d .git ]; then
		cd -P .git || exit 1
		ss_permit "$path"
	elif [ -f HEAD ] && [ -d objects ] && [ -d refs ]; then
		[ "$(git config --file config --type bool core.bare)" = false ] || bare=yes
	else
		[ ! -f .git ] || ss_refuse not-a-repository "$path has a .git file: name the repository that it leads to instead"
		ss_refuse not-a-repository "$path is not a git repository"
	fi
	for part in . objects refs; do
		[ -e "$part" ] || ss_refuse not-a-repository "$path is not a whole git repository: it has no $part"
		[ -O "$part" ] || ss_refuse wrong-owner "$path belongs to $(stat -c %U "$part" 2>/dev/null), not to $(id -un)"
	done
	[ ! -f shallow ] || ss_refuse unsupported-repository "$path is a shallow clone: complete it with git fetch --unshallow"
	[ ! -d reftable ] || ss_refuse unsupported-repository "$path keeps its refs in a reftable, which Studio's publisher can't share"
	[ -z "$root" ] || ss_within
	GIT_DIR=$PWD
	export GIT_DIR
	# git prints the work tree in this form too, even if .git is a symbolic link.
	worktree=${PWD%/.git}
	watched="index FETCH_HEAD index.lock HEAD.lock refs/heads/$branch.lock refs/heads/${branch}_in_progress.lock"
	watched="$watched refs/heads/${live:-$branch}_in_progress refs/heads/${branch}_in_progress"
	if [ -f logs/HEAD ]; then watched="logs/HEAD $watched"; else watched="HEAD $watched"; fi
	named="refs/heads/${live:-$branch} refs/heads/$branch"
	named="$named refs/heads/${live:-$branch}_in_progress refs/heads/${branch}_in_progress"
}

# Refuse if a symbolic link has led from `path` to a directory outside of the folder `root`, or if the repository has
# its refs or objects elsewhere.
ss_within() {
	folder=$(cd -P "$root" && pwd -P) || ss_refuse not-a-repository "there is no directory $root that $(id -un) may enter"
	case $PWD in "${folder%/}"/*) ;; *) ss_refuse outside-root "$path leads out of $root" ;; esac
	for part in commondir refs refs/heads objects; do
		[ ! -L "$part" ] || ss_refuse outside-root "$path has its $part elsewhere"
	done
	[ ! -e commondir ] || ss_refuse outside-root "$path has its refs and objects elsewhere (commondir)"
}

# Set the id of this process (in a subshell, $$ is another's) and its start time: an id may be used again.
ss_self() {
	if read -r stat 2>/dev/null </proc/self/stat; then
		pid=${stat%% *}
		# shellcheck disable=SC2086 # the fields behind the command's name, of which the first is the third
		set -- ${stat##*) }
		start=${20}
	else
		# shellcheck disable=SC2016 # it is the other shell's parent
		pid=$(exec sh -c 'echo "$PPID"') start=0
	fi
}

# ss_lives ID START: whether that process still runs. A zombie does not.
ss_lives() {
	kill -0 "$1" 2>/dev/null || return 1
	[ "$2" != 0 ] || return 0
	read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	# shellcheck disable=SC2086 # as above, behind the time that is looked for
	set -- "$2" ${stat##*) }
	[ "$2" != Z ] && [ "$1" = "${21}" ]
}

# Write a mark before a lock is taken: a file named for the process that answers the request, which names the process
# that locks. If both are killed, the next look finds the mark, and removes their locks and nobody else's.
ss_mark() {
	ss_self
	printf 'where %s\nprocess %s %s\nbranch %s\nnew %s\nbody %s.HEAD\n' \
		"$ss_where" "$pid" "$start" "$branch" "$new" "$own" >"$own"
}

# Read the mark $1.
ss_marked() {
	marked_where='' marked_process='' marked_branch='' marked_new='' marked_body=''
	while IFS=' ' read -r word text; do
		case $word in
		where) marked_where=$text ;;
		process) marked_process=$text ;;
		branch) marked_branch=$text ;;
		new) marked_new=$text ;;
		body) marked_body=$text ;;
		esac
	done <"$1"
}

# Whether one of the processes of the mark $1, which has been read, is still at work; 2 if they ran elsewhere.
ss_at_work() {
	case $marked_where in
	'' | "$ss_where") ;;
	"${ss_where%% *} "*) return 1 ;;
	*) return 2 ;;
	esac
	name=${1#sync-staging-own.}
	# shellcheck disable=SC2086 # an id and a time
	ss_lives "${name%.*}" "${name##*.}" || { [ -n "$marked_process" ] && ss_lives $marked_process; }
}

# Remove the locks and marks of earlier requests that were killed. If another request is at work, remove nothing: its locks
# could be taken for theirs. A mark of another host (an old container) stays: nobody here knows if its process runs.
ss_tidy() {
	dead=''
	for found in sync-staging-own.*; do
		case $found in *.HEAD | *'.*' | *[!a-z0-9.-]*) continue ;; esac
		ss_marked "$found" 2>/dev/null
		ss_at_work "$found"
		case $? in
		0)
			ss_check_stalled
			return 0
			;;
		1) dead="$dead $found" ;;
		esac
	done
	for found in $dead; do
		ss_self
		own=sync-staging-own.$pid.$start
		# Two looks may try at once: the one that renames the mark removes the locks.
		mv "$found" "$own" 2>/dev/null || continue
		ss_marked "$own"
		ss_unlock_refs
		ss_release
	done
}

# Refuse a run if, by the mark that was read, a process of ours is still moving its branch: another listener's, or this
# one's from before a restart. A second git would wait for the same lock. A mere look goes on.
ss_check_stalled() {
	[ "$counting" != yes ] && [ "$marked_branch" = "$branch" ] && [ -e "refs/heads/$branch.lock" ] || return 0
	ss_refuse host-stalled "in $path, git update-ref (process ${marked_process%% *}) of an earlier step does not end"
}

# Remove the locks of a git of ours that was killed in its transaction. git takes the branch's lock last: if that contains
# the mark's new commit, it is ours, and so are the locks before it. No lock is ever removed because of its age.
ss_unlock_refs() {
	said=''
	read -r said 2>/dev/null <"refs/heads/$marked_branch.lock"
	[ -n "$marked_new" ] && [ "$said" = "$marked_new" ] || return 0
	rm -f "refs/heads/${marked_branch}_in_progress.lock" "refs/sync-staging/backup/$marked_branch/"*.lock \
		"refs/sync-staging/incoming/$marked_branch.lock" \
		"refs/namespaces/sync-staging/refs/sync-staging/incoming/$marked_branch.lock" "refs/heads/$marked_branch.lock"
}

# Remove HEAD.lock if it is the same file as ours, and then the mark.
ss_release() {
	# shellcheck disable=SC3013 # dash, bash, ksh and busybox all know -ef
	[ -n "$marked_body" ] && [ "$marked_body" -ef HEAD.lock ] && rm -f HEAD.lock
	# shellcheck disable=SC2086 # no name of ours has a space, and there may be none
	rm -f $marked_body "$own"
}

# Read what HEAD names, in one form: people write it with other spaces, and old tools make it a symbolic link.
ss_head() {
	if [ -L HEAD ]; then
		head="ref: $(readlink HEAD)"
		return
	fi
	read -r head <HEAD || [ -n "$head" ] || ss_refuse not-a-repository "$GIT_DIR/HEAD can't be read"
	case $head in
	ref:*)
		head=${head#ref:}
		head=${head#"${head%%[![:space:]]*}"}
		head="ref: ${head%"${head##*[![:space:]]}"}"
		;;
	esac
}

# Read HEAD, live, the branch and the marks. `live` is empty where live lies in another repository.
ss_refs() {
	ss_head
	# shellcheck disable=SC2086 # the name of a ref has no space
	refs=$(git for-each-ref --format="$ss_format" $named) || ss_unreadable
	ss_check_refs
}

# Read the refs and the times at the same time: each takes a process, and neither needs the other's result.
ss_look() {
	ss_head
	# shellcheck disable=SC2086 # the name of a ref has no space
	refs=$(
		stat -c "file %n $ss_mtime %s %i" $watched "$own" 2>/dev/null | {
			git for-each-ref --format="$ss_format" $named || exit
			while IFS= read -r line; do printf '%s\n' "$line"; done
		}
	) || ss_unreadable
	files=$ss_newline$refs
	refs=${files%%"${ss_newline}file "*}
	files=${files#"$refs"}
	files=${files#"$ss_newline"}
	refs=${refs#"$ss_newline"}
	ss_now "$own"
	ss_check_refs
}

# Check the refs that were read, and complete their lines.
ss_check_refs() {
	for name in $named; do
		[ ! -f "$name" ] || ss_check_ref "$name"
	done
	case $refs in *:::::*) ss_peel ;; esac
	refs="head $head${refs:+$ss_newline$refs}"
}

# Refuse a repository whose refs git can't read. Git is asked again: a survey of many repositories has one standard error.
ss_unreadable() {
	# shellcheck disable=SC2086 # as above
	said=$(git for-each-ref --format="$ss_format" $named 2>&1 >/dev/null)
	said=${said%%"$ss_newline"*}
	case $said in
	*'missing object'*) ss_refuse broken-ref "the repository $path has lost the commit of a branch: $said" ;;
	*'not a git repository'*) ss_refuse not-a-repository "git can't use $path, most often because its HEAD is damaged: $said" ;;
	esac
	ss_refuse remote-step "git for-each-ref failed: $said"
}

# Complete the lines of `refs` that have no tree. Git before 2.45 follows a tag only once, and it may name another tag.
ss_peel() {
	unpeeled=$refs refs=''
	while IFS= read -r line; do
		object=${line#*:}
		case $line in
		*:::::*)
			object=${object%%:*}
			# The commit, its tree, its parents, no symbolic target, and the committer: as in ss_format.
			peeled=$(git -c log.showSignature=false log --no-walk --format='%H:%T:%P::<%ce>' "$object^{commit}" -- 2>/dev/null) &&
				line=${line%%:*}:$object:$peeled:${line#*:::::}
			;;
		esac
		refs=${refs:+$refs$ss_newline}$line
	done <<-END
		$unpeeled
	END
}

# Refuse if the file $1 of a ref does not contain a ref. Git skips it with a warning, and the branch must not be taken for
# a missing one: it would be created anew, and its commits lost.
ss_check_ref() {
	case $ss_newline$refs in *"${ss_newline}ref $1:"*) return 0 ;; esac
	said=''
	read -r said 2>/dev/null <"$1"
	# If it contains a commit, it was written or removed after git looked.
	case $said in *[!0-9a-f]* | '') ;; *[!0]*) [ ${#said} -lt 40 ] || return 0 ;; esac
	[ ! -f "$1" ] || ss_refuse broken-ref "the file $GIT_DIR/$1 does not hold a commit"
}

# ss_files CLOCK: read when the repository was touched, and what time it is, with one stat. CLOCK is a file of ours, for
# the time of the file system, or `-` for the host's: the time of a new pipe.
ss_files() {
	files=$(
		# shellcheck disable=SC2086 # as above
		stat -c "file %n $ss_mtime %s %i" $watched "$1" 2>/dev/null <<-END
			a pipe
		END
	)
	ss_now "$1"
}

# Take the line of the clock $1 out of `files`.
ss_now() {
	now=${files##*"${ss_newline}file $1 "}
	if [ "$now" != "$files" ]; then
		now=${now%% *}
		files=${files%"${ss_newline}file $1 "*}
	else
		now=$(date $ss_clock)
	fi
	[ -n "$files" ] || ss_refuse unsupported-repository "stat -c does not work here: nobody could tell when Studio was at work"
}

# Set `now` and `files`, after everything slow: Studio may begin at any moment. Times are compared with the clock that
# wrote them, for the file system may be another machine's. A mere look writes nothing and uses the host's clock, and so
# does a look that finds nothing to move and old times.
ss_times() {
	if ! ss_is_near; then
		ss_files -
		ss_newest
		[ "$counting" != yes ] && [ $((${now%.*} - newest)) -lt $ss_young ] || return 0
	fi
	if ss_touch 2>/dev/null; then
		ss_files sync-staging-clock
		return 0
	fi
	printf '%s\n' "$GIT_DIR/sync-staging-clock can't be written: times are compared with the host's own clock" >&2
	ss_files -
	# If that clock is ahead, what Studio writes now looks old; only a second look would show that it is at work.
	[ -z "$quiet" ] || kind=''
}

# Whether a move may follow: it is not a mere look, and there is a difference, or only the listener knows if there is.
ss_is_near() {
	if [ "$counting" = yes ]; then return 1; fi
	if [ -n "$target" ] || [ -z "$live" ]; then return 0; fi
	[ "$commit" != "$live_commit" ] && { [ "$tree" != "$live_tree" ] || [ "$compare" = commit ]; }
}

# Write our file, unless something else has its name: a link would lead elsewhere, and a pipe would wait.
ss_touch() {
	[ ! -L sync-staging-clock ] || return 1
	[ -f sync-staging-clock ] || [ ! -e sync-staging-clock ] || return 1
	echo >sync-staging-clock
}

# Set `newest` to the newest of the times of `files`, in whole seconds.
ss_newest() {
	newest=0
	set -f
	IFS=$ss_newline
	for line in $files; do
		time=${line#file * }
		time=${time%%[. ]*}
		[ "$time" -le "$newest" ] || newest=$time
	done
	unset IFS
	set +f
}

# Read from `refs` the branch and live, whether the work tree is on the branch, and whether the branch is at a forward
# commit of ours. `others` are the lines but live's.
ss_tips() {
	tip='' commit='' tree='' parents='' about='' at_head=no ours=no
	live_object='' live_commit='' live_tree='' live_parents='' live_about='' others=''
	set -f
	IFS=$ss_newline
	for line in $refs; do
		IFS=:
		# shellcheck disable=SC2086 # its parts, of which the last two may contain colons
		set -- $line
		if [ "$1" = "ref refs/heads/$live" ]; then
			live_object=$2 live_commit=$3 live_tree=$4 live_parents=$5 live_about=${line#*:*:*:*:*:*:}
		else
			others=${others:+$others$ss_newline}$line
		fi
		[ "$1" = "ref refs/heads/$branch" ] || continue
		tip=$2 commit=$3 tree=$4 parents=$5 about=${line#*:*:*:*:*:*:}
		case $about in "<$ss_email>"*) ours=yes ;; esac
		case $bare$about in no*">:$worktree") at_head=yes ;; esac
	done
	unset IFS
	set +f
	[ -z "$tip" ] || [ -n "$tree" ] || ss_refuse broken-ref "$GIT_DIR/refs/heads/$branch points to something that is not a commit"
	[ -z "$live_commit" ] || [ -n "$live_tree" ] ||
		ss_refuse broken-ref "$GIT_DIR/refs/heads/$live points to something that is not a commit"
}

# List the paths that differ between two commits, at most `listed` of each kind and `room` bytes, and count them.
ss_differences() {
	# Nested trees can have more paths than fit into any memory: git gets 1 GiB, and the list is not kept. Without
	# core.fsmonitor, git would run a program that the repository names.
	{
		# shellcheck disable=SC3045 # dash, bash, ksh and busybox all know -d
		ulimit -d 1048576 2>/dev/null
		git -c core.quotePath=true -c core.fsmonitor= diff-tree -r --no-renames --name-status "$1" "$2" || echo failed
	} | awk -F '\t' -v most="$listed" -v room="$room" '
		$0 == "failed" { failed = 1; next }
		NF {
			kind = $1 == "A" || $1 == "D" ? $1 : "M"
			if (++count[kind] <= most && (room -= length($2) + 3) >= 0) print kind "\t" $2
		}
		$2 ~ /[.]blob"?$/ { blobs++ }
		END {
			if (failed) exit 1
			print "counts", count["A"] + 0, count["M"] + 0, count["D"] + 0, blobs + 0
		}'
}

# Look at the repository and, if everything is as the request expects, move the branch. This is the only function that
# looks or moves. `observe` expects nothing, so it only looks. Of `apply`:
#
#   seen       the lines that must be the same: the fingerprint of a look that was made a moment ago; or, with `quiet`, the
#              fingerprint of an earlier look, without live and the files
#   quiet      milliseconds: live may differ from the look before, and each file must be older than this
#   kind       what to do; with `quiet` it is `forward`, and live decides between a fast-forward and a forward commit
#   to         the commit to go to, empty for live's; a forward commit takes its tree from there
#   stale      the commit of a crashed publish's `<branch>_in_progress`; empty if there must be none
#   backup     the ref that keeps the old commit, `incoming` the one that brought `to` here; each empty for none
#
# Of both: `compare` is `tree` or `commit`: what must be equal. `counting` is `yes` for a mere look, which counts commits
# and lists paths. `target` is the commit to compare the branch to, empty for live's. `since` is the commit from which
# an earlier request of this run moved the branch, or may have; empty for none.
ss_sync() {
	ss_enter
	ss_tidy
	files=''
	if [ -n "$kind" ] && ss_begin 2>/dev/null; then ss_look; else ss_refs; fi
	ss_tips
	ss_goal
	ancestor='' moved=''
	ss_choose
	[ -z "$kind" ] || ss_make
	[ -n "$files" ] || ss_times
	found=$refs$ss_newline$files
	if [ -n "$kind" ] && ss_is_expected && ss_may_move && ss_is_untouched && ss_move; then
		ss_read_back
		moved="moved $kind$ss_newline$refs"
	fi
	[ -n "$ancestor$moved" ] || ss_relate
	# Nothing is printed before the move: a listener that does not read would hold it up after its check.
	[ "$counting" != yes ] || ss_writable
	printf 'now %s\nbare %s\nworktree %s\n%s\nseen\n' "$now" "$bare" "$worktree" "$found"
	[ -z "$target" ] || printf 'target %s %s\n' "$target" "$goal_tree"
	[ "$ancestor" != yes ] || echo 'ancestor'
	[ -z "$moved" ] || printf '%s\n' "$moved"
	[ "$counting" = yes ] || ss_recognise
	[ -z "$listed" ] || ss_list
}

# Print `writable no` if this account may not write here. So a look finds that, without trying to write.
ss_writable() {
	for part in . objects refs refs/heads; do
		[ -w "$part" ] || [ ! -e "$part" ] || { echo 'writable no' && return 0; }
	done
}

# Set the commit to compare the branch to.
ss_goal() {
	goal=$live_commit goal_tree=$live_tree
	[ -n "$target" ] || return 0
	goal=$target
	goal_tree=$(git rev-parse --verify --quiet "$goal^{tree}") ||
		ss_refuse commit-gone "the commit $goal is not in $path any more"
}

# Set `ancestor`: whether the branch is an ancestor of live, where a decision needs it. Only if nothing else answers that
# is git asked: its answer takes the longer, the more forward commits there are.
ss_relate() {
	ancestor=no
	[ -z "$target" ] && [ -n "$commit" ] && [ -n "$live_commit" ] && [ "$commit" != "$live_commit" ] || return 0
	[ "$tree" != "$live_tree" ] || [ "$compare" = commit ] || return 0
	case $ours" $parents " in yes* | *" $live_commit "*) return 0 ;; esac
	case " $live_parents " in *" $commit "*) ancestor=yes && return 0 ;; esac
	git merge-base --is-ancestor "$commit" "$live_commit"
	case $? in
	0) ancestor=yes ;;
	1) ;;
	*) ss_refuse remote-step "git merge-base failed" ;;
	esac
}

# Clear `kind` if HEAD and the refs are not as expected, or nothing has to be done; replace `forward` by what it means.
ss_choose() {
	if [ -z "$quiet" ]; then
		case $seen in "$refs$ss_newline"*) ;; *) kind='' ;; esac
		return 0
	fi
	kind=''
	[ "$seen" = "$others" ] && [ -n "$live_commit" ] && [ "$tree" != "$live_tree" ] || return 0
	# Another work tree has the branch checked out.
	case $about in *">:" | *">:$worktree") ;; *) return 0 ;; esac
	ss_relate
	case $ancestor in yes) kind=fast-forward ;; *) kind=forward-commit ;; esac
}

# Whether the files, too, are as expected.
ss_is_expected() {
	if [ -z "$quiet" ]; then [ "$seen" = "$found" ]; else ss_is_quiet; fi
}

# Whether the repository was not touched since the times were read. This is checked directly before the move. The shell
# compares each file with our mark, which was written before the times were read: stat would take a millisecond, in which
# Studio may begin. Only if a file is not older than the mark, stat is asked. HEAD is read again: without `quiet`, the
# times do not show a checkout.
ss_is_untouched() {
	was=$head
	ss_head
	[ "$head" = "$was" ] || return 1
	for name in $watched; do
		# shellcheck disable=SC3013 # dash, bash, ksh and busybox all know -nt
		[ ! -e "$name" ] || [ "$own" -nt "$name" ] && continue
		was=$files
		ss_files "$own"
		[ "$was" = "$files" ]
		return
	done
}

# Whether there is no lock and no mark, and each file is older than `quiet`. In doubt the answer is no: rounding is up.
ss_is_quiet() {
	case $quiet in *[!0-9]*) return 1 ;; esac
	# A shell with 32 bits can't count milliseconds.
	[ $((2147483647 + 1)) -gt 0 ] || return 1
	ss_milliseconds "$now"
	limit=$((milliseconds - quiet))
	IFS=$ss_newline
	for line in $files; do
		time=${line#file * }
		time=${time%% *}
		ss_milliseconds "$time"
		case $time in *.*) milliseconds=$((milliseconds + 1)) ;; *) milliseconds=$((milliseconds + 1000)) ;; esac
		case $line in "file "*.lock\ * | "file "*_in_progress\ *) milliseconds=$((limit + 1)) ;; esac
		[ "$milliseconds" -le "$limit" ] || break
	done
	unset IFS
	[ "$milliseconds" -le "$limit" ]
}

# Set `milliseconds` to a time, rounded down.
ss_milliseconds() {
	milliseconds=${1#*.}000
	[ "$1" != "${1#*.}" ] || milliseconds=000
	# The 1 before the digits: 08 would be a malformed octal number.
	milliseconds=$((${1%%.*} * 1000 + 1${milliseconds%"${milliseconds#???}"} - 1000))
}

# Set `new` to the commit to move the branch to, and `new_tree` to its tree if that is known.
ss_make() {
	# Without the @, git takes a number of seconds before 1973 for something else.
	GIT_AUTHOR_NAME=$ss_name GIT_AUTHOR_EMAIL=$ss_email GIT_AUTHOR_DATE="@$date +0000"
	GIT_COMMITTER_NAME=$ss_name GIT_COMMITTER_EMAIL=$ss_email GIT_COMMITTER_DATE="@$date +0000"
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
	new=${to:-$live_commit} new_tree=''
	[ -n "$to" ] || new_tree=$live_tree
	# To git, an empty id and only zeros both mean: delete it.
	case $new in *[!0]*) ;; *) ss_refuse remote-step "there is no commit to move $branch to" ;; esac
	[ "$kind" = forward-commit ] || return 0
	set -- -p "$commit"
	# A rollback goes back to what the branch has had already: that is not a second parent.
	[ -n "$to" ] || set -- "$@" -p "$live_commit"
	new=$(git -c i18n.commitEncoding=UTF-8 commit-tree "$new^{tree}" "$@" -m "$subject" -m "$body") ||
		ss_refuse remote-step "git commit-tree failed"
}

# Wait for `go` or `stop`. All slow steps are done before.
ss_may_move() {
	ss_transaction
	read -r said <&3
	exec 3<&-
	case $said in
	"$ss_token go") ;;
	"$ss_token stop" | '') return 1 ;;
	*) ss_malformed "a request to move is not followed by go or stop" ;;
	esac
}

# Set `refs` to what HEAD, live and the branch are after the move. git update-ref writes the branch as a file: if that, HEAD
# and live's file are read as they should be, their lines are known, and git need not be asked.
ss_read_back() {
	was=$head
	ss_head
	case $at_head$head in
	yesref:*) place='?' ;;
	yes*) place='' ;;
	*) [ "$head" = "$was" ] && place=${about#*>:} || place='?' ;;
	esac
	case $kind in
	forward-commit) made="$new_tree:$commit $live_commit::<$ss_email>" ;;
	fast-forward) made="$live_tree:$live_parents::${live_about%%>:*}>" ;;
	*) place='?' ;;
	esac
	is_branch='' is_live=''
	read -r is_branch 2>/dev/null <"refs/heads/$branch"
	read -r is_live 2>/dev/null <"refs/heads/$live"
	if [ "$place" = '?' ] || [ -n "$to" ] || [ "$is_branch" != "$new" ] || [ "$is_live" != "$live_object" ]; then
		ss_refs
		return 0
	fi
	refs="head $head
ref refs/heads/$live:$live_object:$live_commit:$live_tree:$live_parents::$live_about
ref refs/heads/$branch:$new:$new:$made:$place"
}

# Print who has moved the branch from `since`, if it is elsewhere now: this run, if the reflog or the commit names it, or
# somebody else.
ss_recognise() {
	[ -n "$since" ] && [ -n "$commit" ] && [ "$since" != "$commit" ] && [ -z "$moved" ] || return 0
	{
		cat "logs/refs/heads/$branch" 2>/dev/null
		git -c log.showSignature=false log --no-walk --format=%B "$commit" --
	} | grep -q -e "	sync-staging: run $run\$" -e "^Sync-Staging-Run: $run\$" && echo 'recognised' && return 0
	# The last line of the reflog is about the tip, and names another writer.
	case $(tail -n 1 "logs/refs/heads/$branch" 2>/dev/null) in *" $commit "*) echo 'foreign' ;; esac
}

# List paths: for a mere look, what a sync would change; for a run, what it has changed since it began. A run needs no
# list before its move: it would delay that.
ss_list() {
	if [ "$counting" != yes ]; then
		[ -n "$moved" ] || new=$commit
		[ -n "$moved" ] || [ -n "$since" ] || return 0
		since=${since:-$commit}
		if [ -z "$since" ]; then
			ss_blobs "$new"
		elif [ -n "$new" ]; then
			echo 'differences'
			ss_differences "$since" "$new" || echo 'failed'
		fi
	elif [ -n "$goal" ] && [ -z "$commit" ]; then
		ss_blobs "$goal"
	elif [ -n "$goal" ] && [ "$commit" != "$goal" ] && { [ "$tree" != "$goal_tree" ] || [ "$compare" = commit ]; }; then
		printf 'apart %s\n' "$(git rev-list --left-right --count "$commit...$goal")"
		echo 'differences'
		ss_differences "$commit" "$goal" || ss_refuse remote-step "git diff-tree failed"
	fi
}

# Count the pointers into a blob store in the tree of $1.
ss_blobs() {
	printf 'blobs %s\n' "$(git ls-tree -r --name-only "$1" | grep -c '[.]blob"*$')"
}

# Look at many repositories, each in a subshell. Each part's answer ends with a line that starts with its `separator`.
ss_survey() {
	while :; do
		ss_read "separator $ss_question"
		case $separator in '' | *[!0-9a-f]*) ss_malformed "a survey has no separator" ;; esac
		(
			ss_permit_request observe
			ss_sync
		) </dev/null
		printf '\n%s %s\n' "$separator" "$?"
		[ "$more" = yes ] || return 0
	done
}

# Delete the backups of runs whose ids are below `before` (ids sort by time), and print each.
ss_expire() {
	ss_enter
	old=$(git for-each-ref --format='%(refname) %(objectname)' "refs/sync-staging/backup/$branch" |
		awk -v before="$before" '
		{ run = $1; sub(".*/", "", run) }
		run < before { print "option no-deref\ndelete " $1 " " $2 }')
	[ -n "$old" ] || return 0
	printf '%s\n' "$old" | git update-ref --stdin || ss_refuse remote-step "git update-ref failed"
	printf '%s\n' "$old" | grep '^delete'
}

# Print the sites in the folder `root`: an entry's name is `before`, the site's id, `after`, and it has a repository at
# `rest`. With `one`, only look for that id.
ss_sites() {
	cd -P "$root" 2>/dev/null || ss_refuse not-a-repository "there is no directory $root that $(id -un) may enter"
	ss_permit "$root"
	# shellcheck disable=SC2027 # what stands between the quotes is the pattern
	for each in "$before"${one:-*}"$after"; do
		[ -d "$each$rest/.git" ] || [ -f "$each$rest/HEAD" ] || continue
		name=${each#"$before"}
		name=${name%"$after"}
		# Skip names that can't be a site's id: they may contain a new line, and `..` is the folder above.
		case $name in '' | *[!a-z0-9_-]*) continue ;; esac
		printf 'site %s\n' "$name"
	done
}

# Detach HEAD from the branch at its commit, under HEAD's own lock: work tree and index stay as they are, and stay clean.
# The lock is a link to a file of ours, so that a later look recognises it as ours.
ss_detach() {
	printf '%s\n' "$commit" >"$own.HEAD" || ss_refuse remote-step "can't write into $GIT_DIR"
	# Without a reflog, HEAD's own time says when Studio was at work: keep it.
	[ -f logs/HEAD ] || touch -r HEAD "$own.HEAD"
	if ! ln "$own.HEAD" HEAD.lock; then
		[ -e HEAD.lock ] || ss_refuse remote-step "can't make HEAD.lock in $GIT_DIR"
		echo 'busy HEAD.lock'
		return 1
	fi
	was=$head
	ss_head
	if [ "$head" != "$was" ] || { [ -z "$stale" ] && [ -f "refs/heads/${branch}_in_progress" ]; }; then
		echo 'changed'
		return 1
	fi
	mv -f HEAD.lock HEAD || ss_refuse remote-step "can't replace $GIT_DIR/HEAD"
	echo 'detached'
}

# Begin a request to move: write our mark. Its time is the current time by the clock of the file system. If a step fails or
# is ended from here on, the trap removes our lock and mark; after a `kill -9` the next look does. A lock that stayed would
# stop Studio for good.
ss_begin() {
	ss_self
	own=sync-staging-own.$pid.$start
	marked_body=$own.HEAD
	trap ss_release EXIT
	trap 'exit 1' HUP INT TERM
	printf 'where %s\n' "$ss_where" >"$own"
}

# Detach HEAD if the work tree is on the branch, and move the refs, all or none.
ss_move() {
	marked_branch=$branch marked_new=$new
	(
		trap - EXIT HUP INT TERM
		ss_mark || ss_refuse remote-step "can't write into $GIT_DIR"
		[ "$at_head" = no ] || ss_detach || exit 75
		# exec: git must be the process that the mark names.
		exec git update-ref -m "sync-staging: run $run" --stdin <<-END
			$transaction
		END
	)
	status=$?
	[ "$status" -le 128 ] || ss_unlock_refs
	ss_release
	trap - EXIT HUP INT TERM
	case $status in
	0) return 0 ;;
	1) exit 1 ;;
	75) return 1 ;;
	esac
	was=$tip:$stale
	ss_refs
	ss_tips
	mark=${refs##*"${ss_newline}ref refs/heads/${branch}_in_progress:"}
	[ "$mark" != "$refs" ] || mark=''
	[ "$was" != "$tip:${mark%%:*}" ] || ss_refuse remote-step "git update-ref failed"
	echo 'changed'
	return 1
}

# Set `transaction` to what git update-ref reads. The branch must be the last: see ss_unlock_refs.
ss_transaction() {
	transaction="option no-deref
verify refs/heads/${branch}_in_progress $stale"
	[ -z "$backup" ] || transaction="$transaction
option no-deref
update $backup $tip"
	[ -z "$incoming" ] || transaction="$transaction
option no-deref
delete $incoming $to"
	change="create refs/heads/$branch $new"
	[ -z "$tip" ] || change="update refs/heads/$branch $new $tip"
	transaction="$transaction
option no-deref
$change"
}
