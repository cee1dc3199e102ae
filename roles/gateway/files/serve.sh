# Runs NGINX, as its arguments say, with the certificate that ACME got, or with the platform's own until there is one.
# Each new one is taken within seconds by new worker processes of NGINX: what is under way goes on with the old ones, and
# one that it cannot load is not taken.
set -eu
umask 077
got=/acme/served.pem served=/tmp/tls.pem seen=/tmp/seen.pem

own() { cat /config/tls.crt /run/secrets/tls_key >"$served"; }
take() { cp "$got" "$seen" && cat "$seen" >"$served"; }

own
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
  sleep 2 &
  wait $! || :
  if [ -s "$got" ] && ! cmp -s "$got" "$seen" && take; then
    kill -HUP "$server" || :
  fi
done
wait "$server"
