# A subsystem that does not exist is refused, and says so.
code=0
gw -s -- nonsense </dev/null 2>err || code=$?
is "$code" 255
has "$(cat err)" 'subsystem request failed on channel 0'
