# PuTTY's plink.
puttygen "$IDENTITY" -O private -o key.ppk
plink() { command plink -batch -ssh -hostkey "$HOST_KEY" -i key.ppk -P "$PORT" "$LOGIN@127.0.0.1" "$@"; }
code=0
out=$(printf x | plink 'cat; echo err >&2; exit 5' 2>err) || code=$?
is "$code" 5
is "$out" x
has "$(cat err)" err
random 4 up
plink cat <up | cmp - up
