# Runs NGINX, as its arguments say, and gives it new worker processes within seconds where there is news, while what is
# under way goes on with the old ones. News is another address of a neighbour, or a certificate that ACME got, until
# which the platform's own is served; one that NGINX cannot load is not taken.
set -eu
umask 077
got=/acme/served.pem served=/tmp/tls.pem seen=/tmp/seen.pem before=/tmp/before.pem
answers=/tmp/answers known=/tmp/neighbours.conf found=/tmp/found.conf
ends=''
# a name that no container has is asked of servers far away
export RES_OPTIONS='timeout:1 attempts:1'
mkdir -p "$answers"

# musl's getent knows no such question
if ! { getent ahostsv4 127.0.0.1 && command -v cmp && command -v curl; } >/dev/null 2>&1; then
  echo 'gateway_image cannot be used: give an image of Debian or another glibc that has getent, cmp and curl.' >&2
  exit 1
fi

own() { cat /config/tls.crt /run/secrets/tls_key >"$served"; }
renew() {
  cp "$served" "$before"
  cp "$got" "$seen" && cat "$seen" >"$served"
  "$@" -t -q || { cat "$before" >"$served" && return 1; }
}

# Debian's NGINX resolves the names of a group once. One that has no address for a while has no group.
look() {
  pause=3 asked=''
  while read -r host port; do
    getent ahostsv4 "$host" >"$answers/${host%.}-$port" &
    asked="$asked $!"
  done </config/neighbours
  # shellcheck disable=SC2086
  wait $asked || :
  while read -r host port; do
    group=${host%.}-$port
    servers=$(sort -u "$answers/$group" | while read -r address kind _; do
      [ "$kind" != STREAM ] || printf ' server %s:%s;' "$address" "$port"
    done)
    misses=0
    if [ -n "$servers" ]; then
      # shorter than any server keeps one: it would close it in the face of a request
      echo "upstream $group {$servers keepalive 32; keepalive_timeout 1s; keepalive_requests 100000; }"
    else
      misses=$(($(cat "$answers/$group.misses" 2>/dev/null || echo 0) + 1))
      # what is about to start is found at once, and what is off for good is asked for seldom
      [ "$misses" -gt 20 ] || pause=0.5
      # no answer in time looks like no such name
      [ "$misses" -gt 3 ] || grep -sF "upstream $group {" "$known" || :
    fi
    echo "$misses" >"$answers/$group.misses"
  done </config/neighbours >"$found"
  ! cmp -s "$found" "$known" && mv "$found" "$known"
}

own
look || :
[ ! -s "$got" ] || renew "$@" || :
"$@" -g 'daemon off;' &
server=$!
# answers that are under way are given whole; not for longer, for nobody is let in meanwhile and a notebook's never ends
trap 'ends=yes; kill -QUIT "$server" || :' TERM INT QUIT
trap 'kill -HUP "$server" || :' HUP
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
