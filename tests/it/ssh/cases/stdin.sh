# Input and its end, which comes before the end of the output; every byte as it was.
is "$(printf x | gw cat)" x
is "$(gw 'cat; echo done' </dev/null)" "done"
is "$(printf x | gw 'cat; head -c 3000000 /dev/zero' | wc -c)" 3000001
random 8 up
gw cat <up | cmp - up
# A command that does not read all of it.
is "$(gw 'head -c 4' <up | cmp -n 4 - up && echo same)" same
