# ss_end GROUP NAME: end what is left of the shell that was opened under that name, and tell what does not end.
#
# A git that is killed in its ref transaction leaves its .lock files, and Studio can't publish any more. So it is asked
# (TERM), which it obeys as soon as the disk lets it, and takes its locks away; its compare-and-swap makes a late move
# harmless. All else is killed if it does not heed. (Busybox takes no `--` before the group.)
ss_end() {
	[ "$(ss_ours "$1" "$2")" ] || return 0
	kill -TERM "-$1"
	for pause in 0.02 0.08 0.2 0.7; do
		[ "$(ss_ours "$1" "$2")" ] || return 0
		sleep "$pause"
	done
	case $(ss_ours "$1" "$2") in
	*update-ref* | *receive-pack*) ;;
	*)
		kill -KILL "-$1" 2>/dev/null
		sleep 0.1
		;;
	esac
	left=$(ss_ours "$1" "$2")
	[ "$left" ] || return 0
	printf '%s\n' "$left"
	return 1
}

# Tell the living processes of the group $1, a line `left PID COMMAND` each, if one of them is of the shell named $2.
# Ids are used again: without the name, a stranger's group would be ended. It stands in the command line of the shell
# and in the environment of what the shell starts, for the shell may end before what it has started.
ss_ours() {
	kill -0 "-$1" 2>/dev/null || return 0
	ss_members "$1" | {
		ours=no told=
		while read -r process; do
			facts=$(cat "/proc/$process/cmdline" "/proc/$process/environ" 2>/dev/null | tr '\0' ' ')
			args=$(ps -o args= -p "$process" 2>/dev/null || tr '\0' ' ' <"/proc/$process/cmdline")
			case "$facts $args" in *"$2"*) ours=yes ;; esac
			told="$told
left $process $args"
		done
		[ $ours = no ] || printf '%s\n' "${told#?}"
	}
}

# Tell the ids of the processes of group $1 that have not ended.
ss_paren=') '
ss_members() {
	if [ -r /proc/self/stat ]; then
		for each in /proc/[0-9]*/stat; do
			{ read -r stat <"$each"; } 2>/dev/null || continue
			process=${stat%% *}
			# shellcheck disable=SC2086 # behind the command's name, which may hold anything: state, parent, group
			set -- "$1" ${stat##*"$ss_paren"}
			[ "$4" = "$1" ] && [ "$2" != Z ] && printf '%s\n' "$process"
		done
	else
		ps -A -o pgid= -o pid= -o stat= | awk -v group="$1" '$1 == group && $3 !~ /^Z/ { print $2 }'
	fi
}
