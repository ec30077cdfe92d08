//! The suite of all platforms, on a dockerd and a podman of our own; with `EDD_TEST_FULL` alone, for engines take their
//! time.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use edd_servers::engine::{Engine, Kind};

use super::container::LABEL;
use super::*;
use crate::compute::platform::conformance::{self, Machine};

const IMAGE: &str = "default";
/// Makes the image's file tree in the directory `$1`: a shell, its tools and a page.
const ROOT: &str = r##"
set -e
cd "$1"
mkdir -p bin etc/ssh home/user proc root run/sshd sys tmp usr/sbin www/cgi-bin
chown 1000:1000 home/user
chmod 1777 tmp
cp "$(command -v busybox)" bin/busybox
for tool in $(bin/busybox --list); do [ "$tool" = busybox ] || ln -s busybox "bin/$tool"; done
cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
user:x:1000:1000::/home/user:/bin/sh
sshd:x:105:65534::/run/sshd:/bin/false
END
printf 'Include /etc/ssh/sshd_config.d/*.conf\nSubsystem sftp internal-sftp\n' > etc/ssh/sshd_config
cat > www/cgi-bin/index.cgi <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$EDD_CONTAINER_NAME" "$EDD_CONTAINER_ID"
END
# busybox' shell would run its own stty, which cannot tell a size.
rm -f bin/dash bin/stty
cp "$(command -v dash)" "$(command -v stty)" bin/
[ ! -x /usr/sbin/sshd ] || cp /usr/sbin/sshd usr/sbin/
for tool in bin/dash bin/stty usr/sbin/sshd; do
    [ ! -e "$tool" ] || ldd "$tool" | grep -o '/[^ ]*' | while read -r lib; do mkdir -p ".${lib%/*}" && cp "$lib" ".$lib"; done
done
ln -sf dash bin/sh
chmod +x www/cgi-bin/index.cgi
tar -cf ../image.tar .
"##;

/// An installation of its own on an engine that all tests share.
struct Docked {
    engine: &'static Engine,
    installation: String,
}

impl Docked {
    fn on(kind: Kind) -> Option<Self> {
        static ENGINES: [OnceLock<Option<Engine>>; 2] = [OnceLock::new(), OnceLock::new()];
        static IMAGES: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
        std::env::var_os("EDD_TEST_FULL")?;
        let start = || Engine::start(kind).inspect_err(|why| eprintln!("NOT TESTED: {kind:?}: {why}")).ok();
        let engine = ENGINES[kind as usize].get_or_init(start).as_ref()?;
        IMAGES[kind as usize].get_or_init(|| import(engine));
        Some(Self { engine, installation: format!("test-{:016x}", rand::random::<u64>()) })
    }
}

/// Nothing can be fetched: the image is made from what this machine has.
fn import(engine: &Engine) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    let made = Command::new("sh").args(["-c", ROOT, "sh"]).arg(&root).status().expect("a shell");
    assert!(made.success(), "an image needs busybox; Debian: busybox-static");
    let entry = r#"CMD ["sh", "-c", "/usr/sbin/sshd; echo listening on :80; exec httpd -f -p 80 -h /www"]"#;
    let ssh = Path::new("/usr/sbin/sshd").is_file().then_some("EXPOSE 22");
    // By Docker's client: bollard sends all changes in one, which Podman takes for one.
    let changes = [entry, "EXPOSE 80", "ENV PATH=/bin", "ENV HOME=/root"].into_iter().chain(ssh);
    let imported = Command::new("docker")
        .arg("--host")
        .arg(format!("unix://{}", engine.socket().display()))
        .arg("import")
        .args(changes.flat_map(|change| ["--change", change]))
        .arg(folder.path().join("image.tar"))
        .arg(format!("{IMAGE}:latest"))
        .output()
        .expect("docker's client");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[async_trait]
impl Machine for Docked {
    async fn open(&self) -> Arc<dyn Platform> {
        let (socket, sshd) = (self.engine.socket(), Some(conformance::sshd()));
        let platform = DockerPlatform::connect(text(&socket), IMAGE, &self.installation, sshd).await;
        Arc::new(platform.expect("an engine"))
    }

    fn leftovers(&self, id: ContainerId) -> Vec<String> {
        let socket = format!("unix://{}", self.engine.socket().display());
        let ask = |words: &[&str]| {
            let asked = Command::new("docker").args(["--host", &socket]).args(words).output().expect("docker's client");
            String::from_utf8_lossy(&asked.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let label = format!("label={LABEL}={id}");
        let has_entry = !ask(&["ps", "--all", "--quiet", "--filter", &label]).is_empty();
        let runs = ask(&["ps", "--quiet", "--filter", &label]);
        // What is mounted stays with the entry, and goes with it.
        let volumes = ask(&["volume", "ls", "--quiet", "--filter", &label]);
        if has_entry { runs } else { volumes }
    }

    fn outlives_edd(&self) -> bool {
        true
    }

    fn kill_main(&self) -> &'static str {
        "killall -9 httpd"
    }
}

mod docker {
    use super::*;

    conformance::suite!(Docked::on(Kind::Docker));
}

mod podman {
    use super::*;

    conformance::suite!(Docked::on(Kind::Podman));
}
