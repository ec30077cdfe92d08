# Many sessions at once on one connection, each with an end of its own.
master
for number in $(seq 1 20); do
  { code=0; gw -S ctl -- "cat; exit $number" <<<"$number" >"out$number" || code=$?; echo "$code" >"code$number"; } &
done
wait
for number in $(seq 1 20); do
  is "$(cat "out$number")" "$number"
  is "$(cat "code$number")" "$number"
done
