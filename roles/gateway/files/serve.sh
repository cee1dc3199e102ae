# Runs NGINX, as its arguments say, and gives it new worker processes within seconds where there is news, while what is
# under way goes on with the old ones. News is another address of a neighbour, or a certificate that ACME got, until
# which the platform's own is served; one that NGINX cannot load is not taken.
set -eu
umask 077
got=/acme/served.pem served=/tmp/tls.pem seen=/tmp/seen.pem before=/tmp/before.pem
answers=/tmp/answers known=/tmp/neighbours.conf found=/tmp/found.conf
pause=3 missed='' ends=''
# a name that no container has is asked of servers far away
export RES_OPTIONS='timeout:1 attempts:1'
mkdir -p "$answers"

own() { cat /config/tls.crt /run/secrets/tls_key >"$served"; }
renew() {
  cp "$served" "$before"
  cp "$got" "$seen" && cat "$seen" >"$served"
  "$@" -t -q || { cat "$before" >"$served" && return 1; }
}

# Debian's NGINX resolves the names of a group once. One that has no address has no group, and is looked for oftener.
look() {
  pause=3 missing='' asked=''
  while read -r host port; do
    getent ahostsv4 "$host" >"$answers/$host$port" &
    asked="$asked $!"
  done </config/neighbours
  # shellcheck disable=SC2086
  wait $asked || :
  while read -r host port; do
    group=${host%.}-$port
    servers=$(sort -u "$answers/$host$port" | while read -r address kind _; do
      [ "$kind" != STREAM ] || printf ' server %s:%s;' "$address" "$port"
    done)
    if [ -n "$servers" ]; then
      # shorter than any server keeps one: it would close it in the face of a request
      echo "upstream $group {$servers keepalive 32; keepalive_timeout 1s; keepalive_requests 100000; }"
    else
      pause=0.5 missing="$missing $group "
      # one question may go unanswered
      case $missed in *" $group "*) ;; *) grep -s "^upstream $group " "$known" || : ;; esac
    fi
  done </config/neighbours >"$found"
  missed=$missing
  ! cmp -s "$found" "$known" && mv "$found" "$known"
}

own
look || :
[ ! -s "$got" ] || renew "$@" || :
"$@" -g 'daemon off;' &
server=$!
# answers that are under way are given whole; what takes longer is cut before Docker would kill all
trap 'ends=yes; kill -QUIT "$server" || :' TERM INT QUIT
while [ -z "$ends" ] && kill -0 "$server" 2>/dev/null; do
  sleep "$pause" &
  wait $! || :
  [ -z "$ends" ] || break
  news=
  if look; then news=neighbours; fi
  if [ -s "$got" ] && ! cmp -s "$got" "$seen" && renew "$@"; then news=certificate; fi
  if [ -n "$news" ]; then kill -HUP "$server" || :; fi
done
[ -z "$ends" ] || { sleep 5; kill -TERM "$server"; } 2>/dev/null &
wait "$server"
