# Ten wrong keys are offered before the right one.
identities=()
for number in $(seq 1 10); do
  ssh-keygen -q -t ed25519 -N '' -f "wrong$number"
  identities+=(-o "IdentityFile=$PWD/wrong$number")
done
for _ in 1 2 3; do
  # The configuration's own comes last.
  is "$(gw "${identities[@]}" -- 'echo in')" in
done
