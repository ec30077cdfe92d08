//! An nginx of one's own that takes and gives files.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edd_servers::{port, program};

use crate::harness::Workdir;

const CONFIG: &str = include_str!("nginx.conf");
const PATIENCE: Duration = Duration::from_secs(10);

/// Ended when it is dropped, with all that it received.
pub struct Nginx {
    child: Child,
    pub port: u16,
    _folder: Workdir,
}

impl Nginx {
    pub fn start() -> Self {
        let (folder, port) = (Workdir::new(), port::free());
        folder.dir("root");
        let is_root = rustix::process::getuid().is_root();
        let config = CONFIG.replace("@DIR@", folder.path().to_str().expect("a plain path"));
        let config = config.replace("@PORT@", &port.to_string());
        let config = config.replace("@NGINX_USER@", if is_root { "user root;" } else { "" });
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).expect("the folder takes files");
        let nginx = program::candidates("nginx", ["/usr/sbin".into()]).into_iter().next().expect("it was looked for");
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).stdin(Stdio::null());
        let child = command.spawn().expect("nginx starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::yield_now();
        }
        Self { child, port, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // Its workers go with it only if it is asked.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
