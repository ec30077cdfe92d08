# A login shell, with and without a terminal.
printf 'echo one; echo two >&2\nexit 3\n' >script
code=0
out=$(gw -T -- <script 2>err) || code=$?
is "$code" 3
has "$out" one
has "$(cat err)" two
code=0
out=$(TERM=vt220 gw -tt -- <<<'tty; echo "term=$TERM"; stty -a | grep -o "[^ ]*echo\b"; exit 4') || code=$?
is "$code" 4
has "$out" /dev/pts/
has "$out" term=vt220
has "$(gw -tt 'echo both >&2; tty' </dev/null 2>/dev/null)" both
