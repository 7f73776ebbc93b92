# The host's half of the dialogue: POSIX sh, loaded once into a long-lived shell and then spoken to.
#
# A request is lines of text: `TOKEN VERB`, then `NAME=TEXT` for each field that is not empty, `+TEXT` for each further
# line of the field before it, and a dot. A verb that takes several parts has a comma between their fields. Nothing of
# it is run. The reply is what the verb's function prints, closed on both streams by a line that starts with the token.
# A request is answered in a subshell, so that nothing it sets or changes stays behind. An `error CODE TEXT` line is
# the last that a refusing function prints.
#
# Nothing here ever checks a branch out, holds index.lock, or locks live: Studio may start at any moment.
#
# Which function sets which variable; each is read by those that are called after it:
#
#   ss_read    the fields: path root live branch compare listed room counting target seen kind to stale backup incoming
#              run date subject body before after rest one separator; and `more`, whether another part follows
#   ss_enter   bare worktree GIT_DIR
#   ss_head    head
#   ss_refs    refs
#   ss_files   files
#   ss_times   files now
#   ss_self    pid start
#   ss_move    own
#   ss_marked  marked_where marked_process marked_branch marked_new marked_body
#   ss_tips    tip commit tree live_commit live_tree at_head ours
#
# What must not change between deciding and applying is listed here and nowhere else. A reply tells it line by line, and
# a request to move the branch says the same lines back, as the field `seen`:
#
#   head TEXT                   what HEAD names: `ref: refs/heads/...`, or a commit
#   ref NAME:OBJECT:COMMIT:TREE:TARGET:EMAIL:WORKTREE
#                               live, the branch, and the mark of a publish into each, as far as they are there
#   file PATH TIME SIZE INODE   when HEAD's reflog, the index, FETCH_HEAD, the locks and the marks were last written,
#                               as far as they are there
#
# `refs` holds the first two kinds, which ss_refs reads, `files` the third, which ss_files reads.

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
case $(stat -c %.9Y / 2>/dev/null) in
'' | *[!0-9.]*) ss_mtime=%Y ;;
*) ss_mtime=%.9Y ;;
esac

ss_newline='
'
# Where we run: elsewhere, or before the last boot, the id of a process means nothing.
ss_where=''
for ss_file in /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id; do
	read -r ss_line 2>/dev/null <"$ss_file" && ss_where="${ss_where:+$ss_where }$ss_line"
done
[ -n "$ss_where" ] || ss_where=$(uname -n)
# Seconds within which what was touched is young: then the clock of the file system is asked.
ss_young=60
ss_question='path root live branch compare listed room counting target'
# Who commits: a later look tells our commits from a person's by it.
ss_name=sync-staging
ss_email=sync-staging@localhost
# A branch may name a tag: what counts is the commit that it points to. No part but the last two can hold a colon.
ss_commit='%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)'
ss_format="ref %(refname):%(objectname):$ss_commit:%(tree)%(*tree):%(symref):%(committeremail)%(*committeremail):%(worktreepath)"

# ss_dialogue NAME: greet by that name, then answer requests until there are no more.
ss_dialogue() {
	(ss_hello) </dev/null
	ss_close "$1" "$?"
	while IFS=' ' read -r ss_token ss_verb; do
		case $ss_token in '' | *[!0-9a-f]*) exit 64 ;; esac
		(ss_answer "$ss_verb")
		ss_close "$ss_token" "$?"
	done
	exit 0
}

# Close a reply on both streams. What follows a malformed request can't be told from the rest of it: end.
ss_close() {
	printf '\n%s %s\n' "$1" "$2"
	printf '\n%s\n' "$1" >&2
	[ "$2" -ne 64 ] || exit 64
}

# ss_answer VERB: read what belongs to the request, and carry it out if the key may ask for it.
ss_answer() {
	case $1 in
	hello) ss_take hello '' && ss_hello ;;
	observe) ss_take observe "$ss_question" && ss_observe ;;
	survey) ss_survey ;;
	sites) ss_take sites 'root before after rest one' && ss_sites ;;
	expire) ss_take expire 'path root live branch before' && ss_expire ;;
	apply)
		ss_take apply 'path root live branch seen kind to stale backup incoming run date subject body' && ss_apply
		;;
	*) ss_malformed "there is no such request" ;;
	esac
}

# ss_take VERB NAMES: read the fields of a request that has one part.
ss_take() {
	ss_read "$2"
	[ "$more" = no ] || ss_malformed "a request has too many parts"
	exec </dev/null
	ss_permit_request "$1"
}

# ss_read NAMES: set the fields of one part, which are all among the names; those that are not told are empty.
ss_read() {
	path='' root='' live='' branch='' compare='' listed='' room='' counting='' target='' seen='' kind='' to='' stale=''
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

# Set the variable that `field` names to `text`. The names stand here, so that none can be another variable's.
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

# Refuse the request of the verb $1, whose fields are set, if the key may not make it. An unrestricted key may make
# any; gate.sh has its own.
ss_permit_request() {
	# shellcheck disable=SC2317 # it is reached where no gate follows
	:
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
		[ -O "$part" ] || ss_refuse wrong-owner "$path belongs to $(stat -c %U "$part" 2>/dev/null), not to $(id -un)"
	done
	[ ! -f shallow ] || ss_refuse unsupported-repository "$path is a shallow clone: complete it with git fetch --unshallow"
	[ ! -d reftable ] || ss_refuse unsupported-repository "$path keeps its refs in a reftable, which Studio's publisher can't share"
	[ -z "$root" ] || ss_within
	GIT_DIR=$PWD
	export GIT_DIR
	# So git names the repository's own work tree, wherever a symbolic link in the place of .git has led.
	worktree=${PWD%/.git}
}

# Refuse if the directory that we are in, which `path` has led to, lies outside of the folder `root` because of a
# symbolic link, or has its refs or objects elsewhere.
ss_within() {
	folder=$(cd -P "$root" && pwd -P) || ss_refuse not-a-repository "there is no directory $root that $(id -un) may enter"
	case $PWD in "${folder%/}"/*) ;; *) ss_refuse outside-root "$path leads out of $root" ;; esac
	for part in commondir refs refs/heads objects; do
		[ ! -L "$part" ] || ss_refuse outside-root "$path has its $part elsewhere"
	done
	[ ! -e commondir ] || ss_refuse outside-root "$path has its refs and objects elsewhere (commondir)"
}

# Read the id of the process that asks, which a subshell's $$ is not, and when it was started: ids are used again.
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

# ss_lives ID START: whether that process still is there, and is more than a dead one that nobody has taken note of.
ss_lives() {
	kill -0 "$1" 2>/dev/null || return 1
	[ "$2" != 0 ] || return 0
	read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	# shellcheck disable=SC2086 # as above, behind the time that is looked for
	set -- "$2" ${stat##*) }
	[ "$2" != Z ] && [ "$1" = "${21}" ]
}

# What we are about to lock is marked before as ours, by a file that is named for the process that answers the request
# and tells the one that locks: the next look takes away what both have left, and nobody else's.
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

# Take away what predecessors have left that were killed. While another is at work, its locks can't be told from theirs;
# of those that ran on another host (a container that is there no more) nobody here can tell.
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
		# Who renames it has it to itself.
		mv "$found" "$own" 2>/dev/null || continue
		ss_marked "$own"
		ss_unlock_refs
		ss_release
	done
}

# Refuse a run whose branch a process of ours is still moving, which the mark that was read tells: another listener has
# started it, or this one before it was started anew. A second git would wait as it does. A mere look goes on.
ss_check_stalled() {
	[ "$counting" != yes ] && [ "$marked_branch" = "$branch" ] && [ -e "refs/heads/$branch.lock" ] || return 0
	ss_refuse host-stalled "in $path, git update-ref (process ${marked_process%% *}) of an earlier step does not end"
}

# Take away the locks of a git of ours that was killed in its transaction. It takes the branch's lock last: where that
# holds the new commit, it is ours, and so are those before it. Nothing is ever taken for ours by its age.
ss_unlock_refs() {
	said=''
	read -r said 2>/dev/null <"refs/heads/$marked_branch.lock"
	[ -n "$marked_new" ] && [ "$said" = "$marked_new" ] || return 0
	rm -f "refs/heads/${marked_branch}_in_progress.lock" "refs/sync-staging/backup/$marked_branch/"*.lock \
		"refs/sync-staging/incoming/$marked_branch.lock" \
		"refs/namespaces/sync-staging/refs/sync-staging/incoming/$marked_branch.lock" "refs/heads/$marked_branch.lock"
}

# Take HEAD.lock away if it is the same file as ours, and then the mark.
ss_release() {
	# shellcheck disable=SC3013 # dash, bash, ksh and busybox all know -ef
	[ -n "$marked_body" ] && [ "$marked_body" -ef HEAD.lock ] && rm -f HEAD.lock
	# shellcheck disable=SC2086 # no name of ours has a space, and there may be none
	rm -f $marked_body "$own"
}

# Read what HEAD names, in the one form that it is compared in: people write it with other spaces, and old tools make it
# a symbolic link.
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
	refs=$(git for-each-ref --format="$ss_format" "refs/heads/${live:-$branch}" "refs/heads/$branch" \
		"refs/heads/${live:-$branch}_in_progress" "refs/heads/${branch}_in_progress") ||
		ss_refuse remote-step "git for-each-ref failed"
	for name in "${live:-$branch}" "$branch" "${live:-$branch}_in_progress" "${branch}_in_progress"; do
		[ ! -f "refs/heads/$name" ] || ss_check_ref "refs/heads/$name"
	done
	case $refs in *::::*) ss_peel ;; esac
	refs="head $head${refs:+$ss_newline$refs}"
}

# Complete the lines of `refs` that have no tree. Git before 2.45 follows a tag only once, and it may name another tag.
ss_peel() {
	told=$refs refs=''
	while IFS= read -r line; do
		object=${line#*:}
		case $line in
		*::::*)
			object=${object%%:*}
			# The commit, its tree, no symbolic target, and the committer: as in ss_format.
			peeled=$(git -c log.showSignature=false log --no-walk --format='%H:%T::<%ce>' "$object^{commit}" -- 2>/dev/null) &&
				line=${line%%:*}:$object:$peeled:${line#*::::}
			;;
		esac
		refs=${refs:+$refs$ss_newline}$line
	done <<-END
		$told
	END
}

# Refuse if the file $1 of a ref holds nothing that is one. Git passes over it with a warning, and a branch that nobody
# can read must not be taken for one that is not there.
ss_check_ref() {
	case $ss_newline$refs in *"${ss_newline}ref $1:"*) return 0 ;; esac
	said=''
	read -r said 2>/dev/null <"$1"
	# One that holds a commit was made, or is gone, since git looked.
	case $said in *[!0-9a-f]* | '') ;; *[!0]*) [ ${#said} -lt 40 ] || return 0 ;; esac
	[ ! -f "$1" ] || ss_refuse broken-ref "the file $GIT_DIR/$1 does not hold a commit"
}

# Read when the repository was touched. It is read last: Studio may begin at any moment. $1 is one more file, if any.
ss_files() {
	if [ -f logs/HEAD ]; then its_head=logs/HEAD; else its_head=HEAD; fi
	files=$(stat -c "file %n $ss_mtime %s %i" "$its_head" index FETCH_HEAD index.lock HEAD.lock \
		"refs/heads/$branch.lock" "refs/heads/${branch}_in_progress.lock" \
		"refs/heads/${live:-$branch}_in_progress" "refs/heads/${branch}_in_progress" ${1:+"$1"} 2>/dev/null)
	[ -n "$files" ] || ss_refuse unsupported-repository "stat -c does not work here: nobody could tell when Studio was at work"
}

# Set `now`, and `files`. Times are compared with the clock that they were written by: the file system may be another
# machine's. So a file of ours is written, and its own time is now. For old times the host's clock will do, and for a
# mere look, which writes nothing.
ss_times() {
	if ! ss_is_near; then
		ss_files
		now=$(date $ss_clock)
		ss_newest
		[ "$counting" != yes ] && [ $((${now%.*} - newest)) -lt $ss_young ] || return 0
	fi
	if ! ss_touch 2>/dev/null; then
		printf '%s\n' "$GIT_DIR/sync-staging-clock can't be written: times are compared with the host's own clock" >&2
		ss_files
		now=$(date $ss_clock)
		return 0
	fi
	ss_files sync-staging-clock
	now=${files##*"${ss_newline}file sync-staging-clock "}
	now=${now%% *}
	files=${files%"${ss_newline}file sync-staging-clock "*}
}

# Whether the branch may be moved next: it is not a mere look, and there is a difference, or only the listener can tell.
ss_is_near() {
	if [ "$counting" = yes ]; then return 1; fi
	if [ -n "$target" ] || [ -z "$live" ]; then return 0; fi
	[ "$commit" != "$live_commit" ] && { [ "$tree" != "$live_tree" ] || [ "$compare" = commit ]; }
}

# Write our file, where it is one: a link would lead elsewhere, and a pipe would wait.
ss_touch() {
	[ ! -L sync-staging-clock ] || return 1
	[ -f sync-staging-clock ] || [ ! -e sync-staging-clock ] || return 1
	echo >sync-staging-clock
}

# Set `newest` to the newest of the times of `files`, in whole seconds.
ss_newest() {
	newest=0
	while read -r _ _ time _; do
		[ "${time%.*}" -le "$newest" ] || newest=${time%.*}
	done <<-END
		$files
	END
}

# Read from `refs` where the branch and live are, whether the work tree is on the branch, and whether the branch is at a
# forward commit of ours.
ss_tips() {
	tip='' commit='' tree='' live_commit='' live_tree='' at_head=no ours=no
	while IFS=: read -r ref its_object its_commit its_tree _ about; do
		case $ref in
		"ref refs/heads/$branch")
			tip=$its_object commit=$its_commit tree=$its_tree
			case $about in "<$ss_email>"*) ours=yes ;; esac
			case $bare$about in no*">:$worktree") at_head=yes ;; esac
			;;
		esac
		case $ref in
		"ref refs/heads/$live") live_commit=$its_commit live_tree=$its_tree ;;
		esac
	done <<-END
		$refs
	END
	[ -z "$tip" ] || [ -n "$tree" ] || ss_refuse broken-ref "$GIT_DIR/refs/heads/$branch points to something that is not a commit"
	[ -z "$live_commit" ] || [ -n "$live_tree" ] ||
		ss_refuse broken-ref "$GIT_DIR/refs/heads/$live points to something that is not a commit"
}

# List the paths that differ between two commits, `listed` of each kind at most and `room` bytes of all, and count them.
ss_differences() {
	# A few trees that hold each other can have more paths than any memory: git gets 1 GiB, and the list is not kept.
	# Git reads the index too, and would ask a program that the repository names what has changed in the work tree.
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
		}' || ss_refuse remote-step "git diff-tree failed"
}

# Count the pointers into a blob store in the tree of $1.
ss_blobs() {
	printf 'blobs %s\n' "$(git ls-tree -r --name-only "$1" | grep -c '[.]blob"*$')"
}

# Tell everything that a decision needs. `compare` is `tree` or `commit`: what must be equal. `listed` bounds the paths
# of each kind, and `room` the bytes of all. `counting` is `yes` for a mere look, which the numbers of commits belong to:
# no decision needs them. `target` is the commit to compare the branch to, empty for live's.
ss_observe() {
	ss_enter
	ss_tidy
	ss_refs
	ss_tips
	ss_times
	printf 'now %s\nbare %s\nworktree %s\n%s\n%s\nseen\n' "$now" "$bare" "$worktree" "$refs" "$files"
	goal=$live_commit goal_tree=$live_tree
	if [ -n "$target" ]; then
		goal=$target
		goal_tree=$(git rev-parse --verify --quiet "$goal^{tree}") ||
			ss_refuse commit-gone "the commit $goal is not in $path any more"
		printf 'target %s %s\n' "$goal" "$goal_tree"
	fi
	[ -n "$goal" ] && [ "$commit" != "$goal" ] || return 0
	if [ -z "$commit" ]; then
		ss_blobs "$goal"
	elif [ "$tree" != "$goal_tree" ] || [ "$compare" = commit ]; then
		ss_compare
	fi
}

# Tell how the branch differs from `goal`.
ss_compare() {
	if [ "$ours" = no ] && [ -z "$target" ]; then
		git merge-base --is-ancestor "$commit" "$goal"
		case $? in
		0) echo 'ancestor' ;;
		1) ;;
		*) ss_refuse remote-step "git merge-base failed" ;;
		esac
	fi
	[ "$counting" != yes ] || printf 'apart %s\n' "$(git rev-list --left-right --count "$commit...$goal")"
	echo 'differences'
	ss_differences "$commit" "$goal"
}

# Observe many, each in a subshell; each part's answer is closed by a line that starts with its `separator`.
ss_survey() {
	while :; do
		ss_read "separator $ss_question"
		case $separator in '' | *[!0-9a-f]*) ss_malformed "a survey has no separator" ;; esac
		(
			ss_permit_request observe
			ss_observe
		) </dev/null
		printf '\n%s %s\n' "$separator" "$?"
		[ "$more" = yes ] || return 0
	done
}

# Delete the backups of runs whose ids, which sort by time, are below `before`; tell each.
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

# Tell the names between `before` and `after` of what lies in `root` and has a repository at `rest` within. `one` is the
# only name that is asked about, empty for all.
ss_sites() {
	cd -P "$root" 2>/dev/null || ss_refuse not-a-repository "there is no directory $root that $(id -un) may enter"
	ss_permit "$root"
	# shellcheck disable=SC2027 # what stands between the quotes is the pattern
	for each in "$before"${one:-*}"$after"; do
		[ -d "$each$rest/.git" ] || [ -f "$each$rest/HEAD" ] || continue
		name=${each#"$before"}
		name=${name%"$after"}
		# What is no id of a site's may hold anything, a new line too; `..*` is also the folder above.
		case $name in '' | *[!a-z0-9_-]*) continue ;; esac
		printf 'site %s\n' "$name"
	done
}

# Detach HEAD from the branch at the commit that it is at, under HEAD's own lock: work tree and index stay as
# they are, and stay clean. The lock is a link to a file of ours, so that a later look knows it for ours.
ss_detach() {
	printf '%s\n' "$commit" >"$own.HEAD" || ss_refuse remote-step "can't write into $GIT_DIR"
	# Without a reflog, HEAD's own time tells when Studio was at work: it stays as it is.
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

# Move the branch if all is still as `seen`. `to` is the commit to go to, empty for live's; a forward commit takes its
# tree from there. `stale` is the commit of a crashed publish's `<branch>_in_progress`, empty where there must be none.
# `backup` is the ref that keeps the old commit, `incoming` the one that brought `to` here, each empty for none.
ss_apply() {
	ss_enter
	ss_refs
	case $seen in
	"$refs$ss_newline"*) ;;
	*)
		echo 'changed'
		return 0
		;;
	esac
	ss_tips
	# Without the @, git takes a number of seconds before 1973 for something else.
	GIT_AUTHOR_NAME=$ss_name GIT_AUTHOR_EMAIL=$ss_email GIT_AUTHOR_DATE="@$date +0000"
	GIT_COMMITTER_NAME=$ss_name GIT_COMMITTER_EMAIL=$ss_email GIT_COMMITTER_DATE="@$date +0000"
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
	new=${to:-$live_commit}
	# To git, nothing and only zeros both mean: delete it.
	case $new in *[!0]*) ;; *) ss_refuse remote-step "there is no commit to move $branch to" ;; esac
	[ "$kind" != forward-commit ] || ss_commit_forward
	ss_files
	if [ "$seen" != "$refs$ss_newline$files" ]; then
		echo 'changed'
		return 0
	fi
	ss_move || return 0
	ss_refs
	printf 'new %s\n%s\n' "$new" "$refs"
}

# Set `new` to a commit with the tree of the commit that it is now, on top of the branch and of live.
ss_commit_forward() {
	set -- -p "$commit"
	# A rollback goes back to what the branch has had already: that is no second parent.
	[ -n "$to" ] || set -- "$@" -p "$live_commit"
	new=$(git -c i18n.commitEncoding=UTF-8 commit-tree "$new^{tree}" "$@" -m "$subject" -m "$body") ||
		ss_refuse remote-step "git commit-tree failed"
}

# Detach HEAD where the work tree is on the branch, and move the refs, all or none. Whatever fails or is ended between,
# the lock and the mark go with it: the trap sees to that, and the next look where nothing is left to see to it.
ss_move() {
	ss_self
	own=sync-staging-own.$pid.$start
	marked_body=$own.HEAD marked_branch=$branch marked_new=$new
	trap ss_release EXIT
	trap 'exit 1' HUP INT TERM
	(
		trap - EXIT HUP INT TERM
		ss_mark || ss_refuse remote-step "can't write into $GIT_DIR"
		[ "$at_head" = no ] || ss_detach || exit 75
		# It stays the process that the mark tells.
		exec git update-ref -m "sync-staging: run $run" --stdin <<-END
			$(ss_transaction)
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

# The branch comes last: see ss_unlock_refs.
ss_transaction() {
	printf 'option no-deref\nverify refs/heads/%s_in_progress %s\n' "$branch" "$stale"
	[ -z "$backup" ] || printf 'option no-deref\nupdate %s %s\n' "$backup" "$tip"
	[ -z "$incoming" ] || printf 'option no-deref\ndelete %s %s\n' "$incoming" "$to"
	if [ -n "$tip" ]; then
		printf 'option no-deref\nupdate refs/heads/%s %s %s\n' "$branch" "$new" "$tip"
	else
		printf 'option no-deref\ncreate refs/heads/%s %s\n' "$branch" "$new"
	fi
}
