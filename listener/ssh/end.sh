# ss_end GROUP NAME: end the processes of the shell with that name, and print those that do not end.
#
# A git that is killed in its ref transaction leaves its .lock files, and Studio can't publish any more. So it only gets
# TERM: it ends and removes its locks as soon as the disk lets it. If it still moves its ref late, the compare-and-swap
# makes that harmless. Other processes are killed if they ignore TERM. (Busybox accepts no `--` before the group.)
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

# Print the running processes of the group $1, a line `left PID COMMAND` each, if one of them belongs to the shell $2.
# Group ids are reused: without the name, another program's group could be ended. The name is in the command line of the
# shell and in the environment of its children, because the shell may end before they do.
ss_ours() {
	kill -0 "-$1" 2>/dev/null || return 0
	ss_members "$1" | {
		ours=no found=
		while read -r process; do
			facts=$(cat "/proc/$process/cmdline" "/proc/$process/environ" 2>/dev/null | tr '\0' ' ')
			args=$(ps -o args= -p "$process" 2>/dev/null || tr '\0' ' ' <"/proc/$process/cmdline")
			case "$facts $args" in *"$2"*) ours=yes ;; esac
			found="$found
left $process $args"
		done
		[ $ours = no ] || printf '%s\n' "${found#?}"
	}
}

# Print the ids of the processes of group $1 that have not ended.
ss_paren=') '
ss_members() {
	if [ -r /proc/self/stat ]; then
		for each in /proc/[0-9]*/stat; do
			{ read -r stat <"$each"; } 2>/dev/null || continue
			process=${stat%% *}
			# shellcheck disable=SC2086 # the fields after the command's name, which may contain anything: state, parent, group
			set -- "$1" ${stat##*"$ss_paren"}
			[ "$4" = "$1" ] && [ "$2" != Z ] && printf '%s\n' "$process"
		done
	else
		ps -A -o pgid= -o pid= -o stat= | awk -v group="$1" '$1 == group && $3 !~ /^Z/ { print $2 }'
	fi
}
