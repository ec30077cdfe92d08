# A command: what it says, what it complains of apart from that, and how it ends.
code=0
out=$(gw 'echo out; echo err >&2; exit 7' 2>err) || code=$?
is "$code" 7
is "$out" out
is "$(cat err)" err
is "$(gw 'echo "a  b" '"'c'"'; true')" "a  b c"
code=0
gw 'kill -TERM $$' || code=$?
is "$code" 255
