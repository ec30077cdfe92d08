//! The load generators: how each is run, and what its output says.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::cores::pinned;
use super::site::{LARGE_BYTES, Site};
use crate::failure::{Failure, line, not_started};

const WRK_CONNECTIONS: u32 = 64;
const H2_CLIENTS: u32 = 8;
const H2_STREAMS: u32 = 16;
const DOWNLOADS: usize = 5;
/// A run that takes so much longer than asked for is stuck.
const GRACE_SECONDS: u32 = 20;
const CONNECTIONS: &str = include_str!("../../../benches/peers/connections.py");

/// What one run did. An operation is a request, a handshake or a byte, as the workload has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    pub operations: u64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
}

/// Runs load generators on their core.
pub struct Load<'a> {
    pub site: &'a Site,
    pub core: u32,
    pub seconds: u32,
}

impl Load<'_> {
    /// HTTP/1.1 with keep-alive.
    pub fn wrk(&self, url: &str) -> Result<Done, Failure> {
        let mut wrk = self.bounded("wrk");
        wrk.args(["-t1", &format!("-c{WRK_CONNECTIONS}"), &format!("-d{}s", self.seconds), "--latency", url]);
        read(&mut wrk, parse_wrk)
    }

    /// HTTP/2 over TLS.
    pub fn h2load(&self, url: &str) -> Result<Done, Failure> {
        let mut h2load = self.bounded("h2load");
        h2load.args([
            "-t1",
            &format!("-c{H2_CLIENTS}"),
            &format!("-m{H2_STREAMS}"),
            &format!("-D{}", self.seconds),
            url,
        ]);
        read(&mut h2load, parse_h2load)
    }

    /// Downloads of the large file over one connection, enough of them for the 10 ms in which /proc counts.
    pub fn curl(&self, url: &str) -> Result<Done, Failure> {
        let mut curl = self.bounded("curl");
        curl.args(["--silent", "--show-error", "--fail", "--http1.1", "--write-out", "%{size_download}\\n"]);
        curl.arg("--cacert").arg(self.site.authority());
        for _ in 0..DOWNLOADS {
            curl.args(["--output", "/dev/null", url]);
        }
        read(&mut curl, parse_curl)
    }

    /// TLS connections, each with a full handshake, one after another.
    pub fn handshakes(&self, port: u16) -> Result<Done, Failure> {
        let mut python = self.bounded("python3");
        let authority = self.site.authority().display().to_string();
        python.args(["-c", CONNECTIONS, "handshakes", &port.to_string(), &authority, &self.seconds.to_string()]);
        read(&mut python, |text| {
            let count = text.trim().parse().ok().filter(|count| *count > 0)?;
            Some(Done { operations: count, ..Done::default() })
        })
    }

    /// Connections that have had one answer each and wait; they live as long as what is returned.
    pub fn hold(&self, port: u16, tls: bool, count: u32) -> Result<Held, Failure> {
        let mut python = pinned(self.core, "python3");
        let authority = if tls { self.site.authority().display().to_string() } else { "-".to_owned() };
        python.args(["-c", CONNECTIONS, "hold", &port.to_string(), &authority, &count.to_string()]);
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| not_started(&python, &error))?;
        let input = child.stdin.take();
        let mut ready = String::new();
        let read = child.stdout.take().map(|output| BufReader::new(output).read_line(&mut ready));
        let held = Held { child, input };
        match read {
            Some(Ok(_)) if ready == "ready\n" => Ok(held),
            _ => Err(Failure::step(format!("could not hold {count} connections to port {port} (TLS: {tls})"))),
        }
    }

    fn bounded(&self, program: &str) -> Command {
        let mut command = pinned(self.core, "timeout");
        command.args(["--kill-after=2", &(self.seconds + GRACE_SECONDS).to_string(), program]);
        command
    }
}

/// Idle connections; dropping it closes them.
pub struct Held {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("xtask: a client that held connections: {error}");
        }
    }
}

fn read(command: &mut Command, parse: impl Fn(&str) -> Option<Done>) -> Result<Done, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let done = if output.status.success() { parse(&text) } else { None };
    done.ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        // The script of a python command would fill the screen.
        let command: String = line(command).chars().take(200).collect();
        Failure::step(format!(
            "{command}\n{}, and its output is not that of a clean run:\n{text}{errors}",
            output.status
        ))
    })
}

/// None when anything but good answers came, too: such a run measures something else.
fn parse_wrk(output: &str) -> Option<Done> {
    if output.contains("Socket errors:") || output.contains("Non-2xx") {
        return None;
    }
    let lines = || output.lines().map(str::trim);
    let requests = lines().find(|line| line.contains(" requests in "))?.split(' ').next()?.parse().ok()?;
    let percentile = |name: &str| lines().find_map(|line| microseconds(line.strip_prefix(name)?.trim()));
    Some(Done { operations: requests, p50_us: percentile("50%"), p99_us: percentile("99%") })
}

/// None when the protocol is not HTTP/2, or requests failed.
fn parse_h2load(output: &str) -> Option<Done> {
    let lines = || output.lines().map(str::trim);
    lines().find(|line| *line == "Application protocol: h2")?;
    let requests = lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |name: &str| requests.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok());
    let codes = lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let good = codes.split(", ").find_map(|part| part.strip_suffix(" 2xx")?.parse::<u64>().ok())?;
    let clean = count("failed")? == 0 && count("errored")? == 0 && count("timeout")? == 0;
    let succeeded = count("succeeded")?;
    // Those that were in flight when time was up may have had their head already.
    (clean && succeeded > 0 && good >= succeeded).then_some(Done { operations: succeeded, ..Done::default() })
}

/// None unless every download was whole.
fn parse_curl(output: &str) -> Option<Done> {
    let sizes: Vec<u64> = output.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
    let whole = sizes.len() == DOWNLOADS && sizes.iter().all(|bytes| *bytes == LARGE_BYTES);
    whole.then(|| Done { operations: sizes.iter().sum(), ..Done::default() })
}

/// wrk's way to write a duration: `624.00us`, `1.28ms`, `2.01s`.
fn microseconds(text: &str) -> Option<f64> {
    let (number, factor) = match text {
        _ if text.ends_with("us") => (text.strip_suffix("us"), 1.0),
        _ if text.ends_with("ms") => (text.strip_suffix("ms"), 1e3),
        _ => (text.strip_suffix('s'), 1e6),
    };
    number?.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "\
Running 1s test @ http://localhost:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.90ms    0.10ms   3.00ms   75.00%
    Req/Sec    63.10k     1.00k   64.00k    70.00%
  Latency Distribution
     50%  885.00us
     75%    1.01ms
     90%    1.10ms
     99%    1.24ms
  63215 requests in 1.10s, 75.00MB read
Requests/sec:  57468.18
Transfer/sec:     68.18MB
";

    #[test]
    fn wrk_counts_requests_and_percentiles() {
        assert_eq!(parse_wrk(WRK), Some(Done { operations: 63_215, p50_us: Some(885.0), p99_us: Some(1_240.0) }));
    }

    #[test]
    fn a_run_of_wrk_with_errors_counts_for_nothing() {
        for error in ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 9\n"] {
            assert_eq!(parse_wrk(&format!("{WRK}{error}")), None);
        }
    }

    #[test]
    fn downloads_count_when_all_are_whole() {
        let done = Done { operations: 5 * LARGE_BYTES, ..Done::default() };
        assert_eq!(parse_curl(&"104857600\n".repeat(5)), Some(done));
        for output in ["104857600\n".repeat(4), "104857600\n".repeat(4) + "104857599\n", String::new()] {
            assert_eq!(parse_curl(&output), None);
        }
    }

    const H2LOAD: &str = "\
TLS Protocol: TLSv1.3
Application protocol: h2

finished in 1.00s, 57000.00 req/s, 60.01MB/s
requests: 57000 total, 57128 started, 57000 done, 57000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 57012 2xx, 0 3xx, 0 4xx, 0 5xx
";

    #[test]
    fn h2load_counts_requests_that_succeeded() {
        assert_eq!(parse_h2load(H2LOAD), Some(Done { operations: 57_000, ..Done::default() }));
    }

    #[test]
    fn a_run_of_h2load_with_errors_or_without_h2_counts_for_nothing() {
        for (good, bad) in [
            ("0 errored", "1 errored"),
            ("0 timeout", "7 timeout"),
            ("57012 2xx", "100 2xx"),
            ("protocol: h2", "protocol: http/1.1"),
        ] {
            assert_eq!(parse_h2load(&H2LOAD.replace(good, bad)), None, "{bad}");
        }
    }
}
