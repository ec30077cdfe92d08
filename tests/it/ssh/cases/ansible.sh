# Ansible with pipelining, several tasks on one connection.
# needs: tools
cat >ansible.cfg <<END
[defaults]
host_key_checking = False
local_tmp = $PWD/tmp
[ssh_connection]
pipelining = True
ssh_args = -F $CONFIG -o ControlMaster=auto -o ControlPersist=5s -o ControlPath=$PWD/%C
END
random 1 up
cat >play.yml <<END
- hosts: all
  gather_facts: false
  tasks:
    - copy: {src: $PWD/up, dest: $THERE/ansible.bin}
    - fetch: {src: $THERE/ansible.bin, dest: $PWD/down, flat: true}
    - shell: "exit {{ item }}"
      register: failed
      failed_when: failed.rc != item
      loop: [0, 2]
END
export ANSIBLE_CONFIG=$PWD/ansible.cfg ANSIBLE_HOME=$PWD/home ANSIBLE_NOCOLOR=1
"$(dirname "$PYTHON")/ansible-playbook" -i gw, -e ansible_python_interpreter=/usr/bin/python3 play.yml >log 2>&1 ||
  fail "$(cat log)"
cmp up down
