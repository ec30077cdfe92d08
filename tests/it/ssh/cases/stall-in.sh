# A session over there that reads nothing of an endless input does not hold up the next one.
master
gw -S ctl -- 'sleep 1000' </dev/zero &
for _ in 1 2 3 4 5; do
  is "$(gw -S ctl -- 'echo quick; head -c 500000 /dev/zero | wc -c')" $'quick\n500000'
done
random 2 up
gw -S ctl -- cat <up | cmp - up
kill -0 "$!" || fail "it did not stand still"
