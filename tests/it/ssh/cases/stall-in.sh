# A session over there that reads nothing of an endless input does not hold up the next one.
master
gw -S ctl -- 'sleep 60' </dev/zero &
for _ in 1 2 3 4 5; do
  is "$(timeout 5 ssh -F "$CONFIG" -S ctl gw 'echo quick; head -c 500000 /dev/zero | wc -c')" $'quick\n500000'
done
random 2 up
timeout 10 ssh -F "$CONFIG" -S ctl gw cat <up | cmp - up
