# -A: the keys of this side sign over there.
# needs: sshd
eval "$(ssh-agent -a "$PWD/agent.sock")" >agent.log
trap 'kill "$SSH_AGENT_PID"; quit' EXIT
ssh-add -q "$IDENTITY"
is "$(gw -A -- 'ssh-add -l' | cut -d ' ' -f 2)" "$(ssh-keygen -lf "$IDENTITY.pub" | cut -d ' ' -f 2)"
is "$(gw -a -- 'echo "<$SSH_AUTH_SOCK>"')" '<>'
