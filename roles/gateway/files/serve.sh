# Runs NGINX, as its arguments say, and gives it new worker processes within seconds where there is news, while what is
# under way goes on with the old ones. News is another address of a neighbour, or a certificate that ACME got, until
# which the platform's own is served; one that NGINX cannot load is not taken.
set -eu
umask 077
got=/acme/served.pem served=/tmp/tls.pem seen=/tmp/seen.pem known=/tmp/neighbours.conf found=/tmp/found.conf
# a name that no container has is asked of servers far away
export RES_OPTIONS='timeout:1 attempts:1'

own() { cat /config/tls.crt /run/secrets/tls_key >"$served"; }
take() { cp "$got" "$seen" && cat "$seen" >"$served"; }

# Debian's NGINX resolves the names of a group once. One that has no address now has no group, and is looked for oftener.
look() {
  pause=3
  while read -r host port; do
    servers=$(getent ahostsv4 "$host" | sort -u | while read -r address kind _; do
      [ "$kind" != STREAM ] || printf ' server %s:%s;' "$address" "$port"
    done)
    if [ -n "$servers" ]; then
      # shorter than any server keeps one: it would close it in the face of a request
      echo "upstream $host-$port {$servers keepalive 32; keepalive_timeout 1s; keepalive_requests 100000; }"
    else
      pause=0.5
    fi
  done </config/neighbours >"$found"
  ! cmp -s "$found" "$known" && mv "$found" "$known"
}

own
look || :
if [ -s "$got" ]; then
  take
  "$@" -t -q || own
fi
"$@" -g 'daemon off;' &
server=$!
trap 'kill -TERM "$server"' TERM INT
# what NGINX's own image is stopped by
trap 'kill -QUIT "$server"' QUIT
while kill -0 "$server" 2>/dev/null; do
  sleep "$pause" &
  wait $! || :
  news=
  if look; then news=neighbours; fi
  if [ -s "$got" ] && ! cmp -s "$got" "$seen" && take; then news=certificate; fi
  if [ -n "$news" ]; then kill -HUP "$server" || :; fi
done
wait "$server"
