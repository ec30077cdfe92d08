# git over ssh: push, clone, fetch.
# needs: tools
export GIT_SSH_COMMAND="ssh -F $CONFIG" GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
gw "git init -q --bare -b main $THERE/repository.git"
git init -q -b main work
random 2 work/blob
git -C work add blob
git -C work commit -q -m first
git -C work push -q "gw:$THERE/repository.git" main
git clone -q "gw:$THERE/repository.git" clone
cmp work/blob clone/blob
echo more >work/text
git -C work add text
git -C work commit -q -m second
git -C work push -q "gw:$THERE/repository.git" main
git -C clone pull -q
is "$(cat clone/text)" more
