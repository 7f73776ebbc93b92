# ss_end GROUP NAME: end a process group if its leader still is the shell that was opened under that name. A shell that
# we sent the script to bears the name in its command line, one behind a key's gate in the command that the key asked
# for. Git, asked first, takes its locks away.
ss_end() {
	case $(cat "/proc/$1/cmdline" "/proc/$1/environ" 2>/dev/null | tr '\0' ' ') in
	*"$2"*) ;;
	'') case $(ps -o args= -p "$1" 2>/dev/null) in *"$2"*) ;; *) return 0 ;; esac ;;
	*) return 0 ;;
	esac
	kill -s TERM -- "-$1"
	for pause in 0.02 0.08 0.2 0.7; do
		kill -s 0 -- "-$1" 2>/dev/null || return 0
		sleep "$pause"
	done
	kill -s KILL -- "-$1" 2>/dev/null || return 0
}
