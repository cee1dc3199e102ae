# Runs NGINX, as its arguments say, with the certificate that ACME got, or with the platform's own until there is one.
# Each new one is taken within seconds: connections that are open go on, and NGINX stays with the last one that is good.
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
while kill -0 "$server" 2>/dev/null; do
  sleep 2 &
  wait $! || :
  if [ -s "$got" ] && ! cmp -s "$got" "$seen" && take; then
    kill -HUP "$server" || :
  fi
done
wait "$server"
