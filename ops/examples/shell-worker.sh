#!/bin/sh
# A worker with nothing but redis-cli. It joins, takes tasks from its inbox, runs a command for
# each with the prompt on standard input, and completes with what the command used.
#
#   sh shell-worker.sh NAME COMMAND [ARGUMENT…]
#
# The command tells its tokens in the file that ASB_USAGE_FILE names, which is also its file
# descriptor 3: `echo '{"input_tokens": 5, "output_tokens": 9}' >&3`. The last line counts. Nothing
# in its answer is ever usage. Without a word there nobody knows, and the whole hold is charged.
#
# ASB_AGENT      the agent it is, codex for example; without one it serves all
# ASB_NAMESPACE  asb unless given
# ASB_DOOR       its own intake stream, where `asb acl NAME` opened one
# ASB_REDIS_URL  the Redis to join: redis://HOST:PORT as `asb up` prints it; else 127.0.0.1:6379
# REDIS_CLI      redis-cli and its options: "redis-cli -h HOST --user NAME" (with REDISCLI_AUTH)
#                in a Cluster: "redis-cli -c", with the URL of one of its servers
#
# The prompt is data: it is never part of a command line and never evaluated.
set -u

name=${1:?usage: shell-worker.sh NAME COMMAND [ARGUMENT...]}
shift
: "${1:?usage: shell-worker.sh NAME COMMAND [ARGUMENT...]}"
ns=${ASB_NAMESPACE:-asb}
intake=$ns:intake${ASB_DOOR:+:$ASB_DOOR}
inbox=$ns:inbox:$name
lease=60
nl='
'

# Nobody but this user may write there, and nobody can guess where it is.
private=$(mktemp -d) || exit 1
export ASB_USAGE_FILE="$private/usage"

redis() {
  ${REDIS_CLI:-redis-cli} ${ASB_REDIS_URL:+-u "$ASB_REDIS_URL" --no-auth-warning} --raw "$@"
}
where() { # where that is, without a password
  if [ -n "${ASB_REDIS_URL:-}" ]; then echo "$ASB_REDIS_URL" | sed 's#//.*@#//#'
  else echo "${REDIS_CLI:-127.0.0.1:6379}"; fi
}

# Where a process id means one process: host, boot, PID namespace. Empty where there is no telling.
place=$(readlink /proc/self/ns/pid 2>/dev/null) &&
  place=$(uname -n)/$(cat /proc/sys/kernel/random/boot_id)/$place
begun() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 1,20; } # state and start
instance=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n') # the same for every join of this process
me="$instance ${place:--} $$ $(begun $$ | cut -d ' ' -f 2)"

# What shows that the holder of our name is dead, to which the heartbeat $* belongs. It names
# session, instance, place, process and start; from another place nothing can be seen.
evidence() {
  [ -n "$place" ] && [ "${3:-}" = "$place" ] && [ -n "${5:-}" ] || return 0
  case $(begun "$4") in
    [!ZX]" $5") ;;
    *) echo "$1 its process $4 is gone" ;;
  esac
}

# 1. Join. The id of this entry is the session; it is in every task that is meant for us. A name
# belongs to the worker that has it while that is alive: without evidence we are refused then.
join() {
  # It is split into words on purpose.
  # shellcheck disable=SC2046
  dead=$(set -f && evidence $(redis GET "$ns:worker:$name"))
  session=$(redis XADD "$intake" '*' type worker.joined worker "$name" capacity 1 \
    instance "$instance" lease_s "$lease" ${ASB_AGENT:+agent "$ASB_AGENT"} ${dead:+evidence "$dead"})
  case $session in
    *[!0-9-]* | '') echo "cannot join: $session" >&2 && return 1 ;;
  esac
  [ -z "$dead" ] || redis DEL "$ns:worker:$name" >/dev/null
  cursor=0-0
  echo "worker $name joined $(where), session $session" >&2
}

# The heartbeat, for half a lease: when it was gone for another half the engine takes the worker for
# dead. That of another process is left alone until it is gone.
beat() {
  case $(redis GET "$ns:worker:$name") in
    '' | *" $instance "*) redis SET "$ns:worker:$name" "$session $me" EX $((lease / 2)) >/dev/null ;;
  esac
}
heartbeat() {
  while beat && sleep $((lease / 6)) && kill -0 $$ 2>/dev/null; do :; done
}

leave() {
  trap - EXIT INT TERM
  [ -z "${pulse:-}" ] || kill "$pulse" 2>/dev/null
  rm -rf "$private"
  [ -z "${session:-}" ] || {
    redis XADD "$intake" '*' type worker.left worker "$name" session "$session" >/dev/null
    case $(redis GET "$ns:worker:$name") in
      "$session "*) redis DEL "$ns:worker:$name" >/dev/null ;;
    esac
  }
  exit "${1:-0}"
}

# The name belongs to another worker, which is alive.
refused() {
  echo "a worker named $name is alive: session $(line 10)" >&2
  exit 1
}

# What is not UTF-8 would be refused, and with it the whole report.
clean() { if command -v iconv >/dev/null; then iconv -c -f UTF-8 -t UTF-8; else cat; fi; }

# The value of line $1 of the entry.
line() { printf '%s\n' "$entry" | sed -n "$1p"; }

# 2. Take the next entry of the inbox. redis-cli prints it one part a line: key, id, then names
# and values in this order: log type task attempt session text kind agent model deadline priority
# timeout_s.
# Only the text may have several lines, so all else is found by counting from both ends.
take() {
  entry=$(redis XREAD COUNT 1 BLOCK 5000 STREAMS "$inbox" "$cursor") || return 1
  [ -n "$entry" ] || return 1
  id=$(line 2)
  case $id in *[!0-9-]* | '') sleep 1 && return 1 ;; esac
  cursor=$id type=$(line 6)
}

# 3. Run it, and complete it with its usage. `-x` takes the last value from standard input.
work() {
  task=$(line 8) attempt=$(line 10) mine=$(line 12)
  [ "$mine" = "$session" ] || return 0
  text=$(printf '%s\n' "$entry" | sed '1,13d' | sed -e :a -e '$d;N;2,12ba' -e 'P;D')
  redis XADD "$intake" '*' type task.started task "$task" attempt "$attempt" \
    session "$session" >/dev/null
  rm -rf "$ASB_USAGE_FILE"
  (umask 077 && : >"$ASB_USAGE_FILE")
  if out=$(printf '%s\n' "$text" | "$@" 3>>"$ASB_USAGE_FILE"); then
    end=task.completed field=result
  else
    out="exit code $?$nl$(printf '%s' "$out" | tail -c 2000)" end=task.failed field=error
  fi
  # What it says is for the bus to judge: a figure that cannot be read costs no result.
  usage=
  [ -L "$ASB_USAGE_FILE" ] || [ ! -f "$ASB_USAGE_FILE" ] ||
    usage=$(tail -c 8000 "$ASB_USAGE_FILE" | grep '^{.*}[[:space:]]*$' | tail -n 1 | clean)
  printf '%s' "$out" | clean | redis -x XADD "$intake" '*' type "$end" task "$task" attempt "$attempt" \
    session "$session" ${usage:+usage "$usage"} "$field" >/dev/null
}

# Its text was taken out before it came here: nothing is run, and that is said.
forgotten() {
  [ "$(line 12)" != "$session" ] || redis XADD "$intake" '*' type task.cancelled task "$(line 8)" \
    attempt "$(line 10)" session "$session" started no reason "its text was forgotten" >/dev/null
}

start() {
  [ -z "${pulse:-}" ] || kill "$pulse" 2>/dev/null
  join || exit 1
  heartbeat &
  pulse=$!
}

trap 'leave 0' INT TERM
trap 'leave $?' EXIT
start
while :; do
  take || continue
  case $type in
    task.dispatched) work "$@" ;;
    task.forgotten) forgotten ;;
    worker.lost) [ "$(line 8)" != "$session" ] || start ;;
    worker.refused) [ "$(line 8)" != "$session" ] || refused ;;
  esac
done
