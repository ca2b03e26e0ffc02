# Stops a server after its owner died. Arguments: the first signal, without SIG; the tenths of a
# second to wait before a harder one; the folder to remove afterwards, or nothing. Standard input
# is a pipe that only the owner can write to: first the server's process id, then "done" if the
# owner has stopped the server. The end of the pipe without that word means that the owner died.
# Standard output is the lock of the data folder, held while this script runs.
trap '' HUP INT TERM
cd /
IFS= read -r pid || exit 0
IFS= read -r word
[ "$word" = done ] && exit 0

await_end() {
    tenths=$1
    while kill -0 "$pid" 2>/dev/null; do
        [ "$tenths" -le 0 ] && return 1
        tenths=$((tenths - 1))
        sleep 0.1
    done
}

kill -"$1" "$pid" 2>/dev/null
await_end "$2" || { kill -QUIT "$pid" 2>/dev/null; await_end 30; } || kill -KILL "$pid" 2>/dev/null
[ -n "$3" ] && rm -rf -- "$3"
exit 0
